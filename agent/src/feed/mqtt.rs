//! A local broker as a feed: a message on a topic is answered on another.
//!
//! Decides what a message may be and how many wait. A message that finds no room is dropped and counted, as is an answer
//! that finds no connection: a sensor speaks again. Each connection begins with a client of its own.

use super::answer::{self, Unanswered};
use super::input;
use super::meant::Mqtt;
use super::{Count, ended};
use crate::http::{InferRequest, Written};
use crate::mqtt::pause;
use crate::worker::{Answered, Question, Worker};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{Outgoing, Transport};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Messages that wait for their answer, and answers that wait for the connection.
const QUEUE: usize = 16;
/// The largest message, topic and all.
const MAX_MESSAGE_BYTES: u32 = 1 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT_S: u64 = 10;
/// The library's own default costs 14 MB.
const INFLIGHT: u16 = 16;
const GOOD_CONNECTION: Duration = Duration::from_secs(30);
/// What waits when the agent stops is answered in this time, or not at all.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// A message that waits.
#[derive(Debug)]
struct Asked {
    topic: String,
    payload: Vec<u8>,
}

/// Works until it shall end.
pub(super) async fn run(
    meant: &Mqtt,
    client_id: String,
    worker: &Arc<Worker>,
    count: &Count,
    mut stopped: watch::Receiver<bool>,
) {
    let (questions, inbox) = mpsc::channel(QUEUE);
    let (line, current) = watch::channel(None);
    let answering = answer_all(meant, worker, count, inbox, current);
    let connecting = keep_connected(meant, &client_id, count, questions, line, stopped.clone());
    let late = async {
        ended(&mut stopped).await;
        tokio::time::sleep(LAST_PATIENCE).await;
    };
    tokio::select! {
        _ = async { tokio::join!(answering, connecting) } => {}
        () = late => {}
    }
}

/// Answers one message after the other, until there are no more to come; then says goodbye.
async fn answer_all(
    meant: &Mqtt,
    worker: &Arc<Worker>,
    count: &Count,
    mut inbox: mpsc::Receiver<Asked>,
    current: watch::Receiver<Option<AsyncClient>>,
) {
    while let Some(question) = inbox.recv().await {
        let payload = match answer(meant, worker, question).await {
            Ok(answer) => {
                count.answered();
                answer
            }
            Err((topic, why)) => {
                count.failed();
                tracing::debug!(topic, "a message has no answer: {why}");
                json!({ "topic": topic, "model": meant.model, "error": why }).to_string().into_bytes()
            }
        };
        let client = current.borrow().clone();
        let handed =
            client.is_some_and(|client| client.try_publish(meant.to.clone(), QoS::AtLeastOnce, false, payload).is_ok());
        if !handed {
            count.dropped();
        }
    }
    let client = current.borrow().clone();
    // Without a connection there is nobody to say it to.
    if let Some(client) = client
        && client.try_disconnect().is_err()
    {
        tracing::debug!("the broker hears no goodbye");
    }
}

async fn answer(meant: &Mqtt, worker: &Arc<Worker>, asked: Asked) -> Result<Vec<u8>, (String, String)> {
    let Asked { topic, payload } = asked;
    let told = |unanswered| match unanswered {
        Unanswered::NotNow(why) | Unanswered::Never(why) => (topic.clone(), why),
    };
    let (_, serving) = worker.find(meant.model.as_str()).map_err(|failure| told(failure.into()))?;
    let read = move || {
        let never = Unanswered::Never;
        let first = payload.iter().find(|byte| !byte.is_ascii_whitespace());
        let (request, input) = if first == Some(&b'{') {
            let mut request = InferRequest::parse(&payload).map_err(never)?;
            let input = request.input(&[]).map_err(never)?;
            (Some(request), input)
        } else {
            (None, input::of_message(&payload, serving.main.inputs().first()).map_err(never)?)
        };
        let question = Question::of(&input).map_err(never)?;
        let question = question.known_as(request.as_ref().and_then(InferRequest::id));
        Ok((request, question))
    };
    let (model, about) = (meant.model.clone(), topic.clone());
    let write = move |request: Option<InferRequest>, answered| match request {
        Some(request) => protocol_answer(request, model.as_str(), &about, answered),
        None => answer::message(&about, &model, answered),
    };
    answer::ask(worker, &meant.model, read, write).await.map_err(told)
}

/// The answer to a request of the Open Inference Protocol: the response, with the topic of the request.
fn protocol_answer(request: InferRequest, model: &str, topic: &str, answered: Answered) -> Result<Vec<u8>, Unanswered> {
    request.id().iter().for_each(|id| answered.note(id));
    let Written { body, json_length } = request.respond(model, answered).map_err(Unanswered::Never)?;
    if json_length.is_some() {
        return Err(Unanswered::Never("a message is JSON from end to end: ask for no output as bytes".into()));
    }
    // An object with a name and more in it: one more member goes in front.
    let mut answer = format!("{{\"topic\":{},", json!(topic)).into_bytes();
    answer.extend(body.get(1..).unwrap_or_default());
    Ok(answer)
}

/// Ends when it shall and all is said.
async fn keep_connected(
    meant: &Mqtt,
    client_id: &str,
    count: &Count,
    questions: mpsc::Sender<Asked>,
    line: watch::Sender<Option<AsyncClient>>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut questions = Some(questions);
    let mut failures = 0;
    while !*stopped.borrow() {
        let began = Instant::now();
        let (client, mut polled) = AsyncClient::new(options(meant, client_id), QUEUE);
        let why = connection(meant, client, &mut polled, count, &mut questions, &line, &mut stopped).await;
        line.send_replace(None);
        let Some(why) = why else { return };
        count.troubled(format!("the broker {}:{}: {why}", meant.broker.host, meant.broker.port));
        failures = if began.elapsed() >= GOOD_CONNECTION { 0 } else { failures + 1 };
        tokio::select! {
            () = ended(&mut stopped) => {}
            () = tokio::time::sleep(pause(failures, fastrand::f64())) => {}
        }
    }
}

/// One connection, until it breaks (why), or the goodbye is said.
async fn connection(
    meant: &Mqtt,
    client: AsyncClient,
    polled: &mut EventLoop,
    count: &Count,
    questions: &mut Option<mpsc::Sender<Asked>>,
    line: &watch::Sender<Option<AsyncClient>>,
    stopped: &mut watch::Receiver<bool>,
) -> Option<String> {
    loop {
        let event = {
            // It is never dropped in the middle of a packet.
            let poll = polled.poll();
            tokio::pin!(poll);
            loop {
                tokio::select! {
                    event = &mut poll => break event,
                    () = ended(stopped), if questions.is_some() => {
                        *questions = None;
                        if line.borrow().is_none() {
                            return None;
                        }
                    }
                }
            }
        };
        match event {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                if client.try_subscribe(&meant.from, QoS::AtLeastOnce).is_err() {
                    return Some("it takes no subscription".into());
                }
                line.send_replace(Some(client.clone()));
            }
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                let taken = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                if !ack.return_codes.iter().all(taken) {
                    return Some(format!("it refuses the subscription to {}", meant.from));
                }
                count.works();
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let Ok(topic) = String::from_utf8(publish.topic.to_vec()) else { continue };
                // An empty one is how a retained one is cleared.
                if publish.payload.is_empty() {
                    continue;
                }
                let question = Asked { topic, payload: publish.payload.to_vec() };
                if let Some(questions) = &questions
                    && questions.try_send(question).is_err()
                {
                    count.dropped();
                }
            }
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return None,
            Ok(_) => {}
            Err(why) => return Some(why.to_string()),
        }
    }
}

fn options(meant: &Mqtt, client_id: &str) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, &meant.broker.host, meant.broker.port);
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_TIMEOUT_S);
    options
        .set_transport(Transport::tcp())
        .set_keep_alive(KEEP_ALIVE)
        .set_connection_timeout(CONNECT_TIMEOUT_S)
        .set_clean_start(true)
        .set_max_packet_size(Some(MAX_MESSAGE_BYTES))
        .set_outgoing_inflight_upper_limit(INFLIGHT)
        .set_network_options(network);
    options
}

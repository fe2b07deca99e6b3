//! The local API on a port of its own, asked by a client that knows nothing of it.

use super::*;
use crate::store::{Bundles, host};
use crate::testing::{Fixture, models};
use crate::worker::{Loader, Place, Program, Task};
use engine::{Data, Limits, read_npy};
use protocol::StreamName;
use serde_json::Value;
use std::net::SocketAddr;
use tokio::sync::mpsc;

struct Served {
    _state: tempfile::TempDir,
    address: SocketAddr,
    _stop: watch::Sender<()>,
    _status: watch::Sender<Arc<Status>>,
}

fn status(listen: SocketAddr) -> Status {
    serde_json::from_value(json!({
        "device": "d", "fleet": "f", "board": "b", "agent": "0", "boot": 1, "uptime_s": 0, "broker": "b:1",
        "connected": false, "key_id": "", "certificate_until": null, "root_version": 1, "revocation": null,
        "clock": "STALE", "generation": null, "listen": listen, "outbox": 0,
        "spool": { "waiting": 0, "bytes": 0, "merged": 0, "dropped": 0, "damaged": 0 },
        "streams": [{
            "stream": "digits", "phase": "settled", "held": null, "silenced": false, "wanted": 1, "active": 1, "previous": null, "trial": null,
            "serving": null, "fallback": null, "process": null, "sandbox": null, "answers": 0, "errors": 0, "progress": null
        }],
        "refusals": []
    }))
    .unwrap()
}

/// Serves `main`, and what it cannot answer by `fallback`; without `main` nothing serves.
async fn served(main: Option<&Fixture>, fallback: Option<&Fixture>) -> Served {
    let state = tempfile::tempdir().unwrap();
    let bundles = Bundles::open(host(), state.path()).unwrap();
    let (kept, worker) = (bundles.clone(), Arc::new(Worker::default()));
    if let Some(main) = main {
        [Some(main), fallback].into_iter().flatten().for_each(|f| f.install(&bundles));
        let (say, mut events) = mpsc::unbounded_channel();
        let (program, patience) = (Program::of_tests(), std::time::Duration::from_secs(60));
        let loader = Loader::start(bundles, worker.clone(), program, patience, say).unwrap();
        let stream: StreamName = "digits".parse().unwrap();
        let place = |fixture: &Fixture| Place { bundle: fixture.digest, row_us: 1_000 };
        loader.ask(Task::Serve { stream, main: place(main), fallback: fallback.map(place) });
        assert!(matches!(events.recv().await, Some(agent_core::Event::Served { .. })));
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (say_status, statuses) = watch::channel(Arc::new(status(address)));
    let (stop, stopped) = watch::channel(());
    let (say_word, _) = mpsc::unbounded_channel();
    let flow = agent_core::Flow::new(8, None, "served");
    let keeper = crate::keeper::Keeper::start(Arc::new(crate::testing::trust()), kept, flow, say_word).unwrap();
    let api =
        Api { worker, large: Arc::new(Semaphore::new(MOST_LARGE)), counter: keeper.counter(false), status: statuses };
    tokio::spawn(serve(listener, None, api, stopped));
    Served { _state: state, address, _stop: stop, _status: say_status }
}

impl Served {
    /// Code, answer, and whether a later try was suggested.
    async fn call(&self, method: &'static str, path: &str, body: Vec<u8>) -> (u16, Value, bool) {
        let url = format!("http://{}{path}", self.address);
        let call = move || {
            let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
            let response = match method {
                "GET" => agent.get(&url).call(),
                _ => agent.post(&url).header("content-type", "application/json").send(&body),
            };
            let mut response = response.unwrap();
            let later = response.headers().contains_key("retry-after");
            (response.status().as_u16(), response.body_mut().read_json().unwrap(), later)
        };
        tokio::task::spawn_blocking(call).await.unwrap()
    }

    /// Code, where the JSON ends when bytes follow, and the whole body.
    async fn send_binary(&self, json_length: usize, body: Vec<u8>) -> (u16, Option<usize>, Vec<u8>) {
        let url = format!("http://{}{INFER}", self.address);
        let call = move || {
            let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
            let request = agent.post(&url).header("Inference-Header-Content-Length", json_length.to_string());
            let mut response = request.send(&body).unwrap();
            let told = response.headers().get("inference-header-content-length");
            let told = told.map(|said| said.to_str().unwrap().parse().unwrap());
            (response.status().as_u16(), told, response.body_mut().read_to_vec().unwrap())
        };
        tokio::task::spawn_blocking(call).await.unwrap()
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (code, answer, _) = self.call("GET", path, Vec::new()).await;
        (code, answer)
    }

    async fn infer(&self, path: &str, body: Value) -> (u16, Value) {
        let (code, answer, _) = self.call("POST", path, serde_json::to_vec(&body).unwrap()).await;
        (code, answer)
    }
}

const INFER: &str = "/v2/models/digits/infer";

/// Held-out rows as a request.
fn rows(range: std::ops::Range<usize>) -> Value {
    let all = read_npy(&models().join("digits/heldout_x.npy"), &Limits::default()).unwrap();
    let Data::F32(data) = all.rows(range.clone()).unwrap().data else { panic!("pictures are FP32") };
    json!({ "id": "a-1", "inputs": [{ "name": "image", "shape": [range.len(), 1, 8, 8], "datatype": "FP32", "data": data }] })
}

fn output<'a>(answer: &'a Value, name: &str) -> &'a Value {
    answer["outputs"].as_array().unwrap().iter().find(|o| o["name"] == name).unwrap()
}

#[tokio::test]
async fn the_whole_held_out_set_is_answered_as_the_reference_did() {
    let fixture = Fixture::digits(5);
    let served = served(Some(&fixture), None).await;
    let (code, answer) = served.infer(INFER, rows(0..500)).await;
    assert_eq!(code, 200, "{answer}");
    let expected = read_npy(&models().join("digits/heldout_class.npy"), &Limits::default()).unwrap();
    let Data::I64(expected) = expected.data else { panic!("classes are INT64") };
    let class = output(&answer, "class");
    assert_eq!(class["data"], json!(expected));
    assert_eq!((&class["datatype"], &class["shape"]), (&json!("INT64"), &json!([500])));
    let label = output(&answer, "label");
    assert_eq!((&label["datatype"], label["data"].as_array().unwrap().len()), (&json!("BYTES"), 500));
    assert_eq!(output(&answer, "logits")["shape"], json!([500, 10]));
    assert_eq!((&answer["id"], &answer["model_version"]), (&json!("a-1"), &json!("5")));
    assert_eq!(answer["parameters"], json!({ "release": 5 }));
}

#[tokio::test]
async fn the_answer_says_which_release_gave_it() {
    let (good, bad) = (Fixture::digits(1), Fixture::digits_bad(2));
    let served = served(Some(&bad), Some(&good)).await;
    let mut by = std::collections::BTreeSet::new();
    for n in 0..30 {
        let (code, answer) = served.infer(INFER, rows(n..n + 1)).await;
        assert_eq!(code, 200);
        by.insert(answer["parameters"]["release"].as_u64().unwrap());
    }
    assert_eq!(by, [1, 2].into());
    let (code, answer) = served.infer("/v2/models/digits/versions/1/infer", rows(0..30)).await;
    assert_eq!((code, &answer["model_version"]), (200, &json!("1")));
    let (code, answer) = served.infer("/v2/models/digits/versions/2/infer", rows(0..30)).await;
    assert_eq!(code, 500, "asked by its number, nobody stands in for it: {answer}");
    assert!(answer["error"].as_str().unwrap().contains("not a finite number"));
}

#[tokio::test]
async fn wrong_requests_are_told_what_is_wrong() {
    let fixture = Fixture::digits(1);
    let served = served(Some(&fixture), None).await;
    let ask = |shape: Value, output: &str| {
        json!({
            "inputs": [{ "name": "image", "shape": shape, "datatype": "FP32", "data": [0.5] }],
            "outputs": [{ "name": output }]
        })
    };
    let mut no_such_output = rows(0..1);
    no_such_output["outputs"] = json!([{ "name": "colour" }]);
    let cases = [
        (INFER, json!({}), 400, "inputs"),
        (INFER, ask(json!([1, 1]), "class"), 400, "shape"),
        (INFER, ask(json!([2]), "class"), 400, "holds 2 elements"),
        (INFER, no_such_output, 400, "no output `colour`"),
        ("/v2/models/other/infer", rows(0..1), 404, "no model `other`"),
        ("/v2/models/digits/versions/7/infer", rows(0..1), 404, "release 7"),
        ("/v2/nothing", json!({}), 404, "/v2"),
        ("/status", json!({}), 405, "another method"),
    ];
    for (path, body, code, word) in cases {
        let (got, answer) = served.infer(path, body).await;
        assert_eq!(got, code, "{path}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(word), "{path}: {answer}");
    }
    let (code, answer, _) = served.call("POST", INFER, vec![b' '; MAX_BODY_BYTES + 1]).await;
    assert_eq!(code, 413, "{answer}");
    let (code, answer, _) = served.call("POST", INFER, b"{".to_vec()).await;
    assert_eq!(code, 400, "{answer}");
}

#[tokio::test]
async fn only_what_was_asked_for_is_given() {
    let fixture = Fixture::digits(1);
    let served = served(Some(&fixture), None).await;
    let mut asked = rows(0..2);
    asked["outputs"] = json!([{ "name": "class" }]);
    let (code, answer) = served.infer(INFER, asked).await;
    assert_eq!((code, answer["outputs"].as_array().unwrap().len()), (200, 1));
    assert_eq!(output(&answer, "class")["shape"], json!([2]));
}

/// As `tritonclient` sends and reads them: values as bytes behind the JSON, both ways.
#[tokio::test]
async fn tensors_may_be_bytes() {
    let fixture = Fixture::digits(1);
    let served = served(Some(&fixture), None).await;
    let (_, plain) = served.infer(INFER, rows(0..3)).await;
    let mut json = rows(0..3);
    let image = json["inputs"][0].as_object_mut().unwrap();
    let values: Vec<f32> = serde_json::from_value(image.remove("data").unwrap()).unwrap();
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    image.insert("parameters".into(), json!({ "binary_data_size": bytes.len() }));
    json["outputs"] = json!([
        { "name": "class", "parameters": { "binary_data": true } },
        { "name": "label", "parameters": { "binary_data": true } },
        { "name": "logits" }
    ]);
    let head = serde_json::to_vec(&json).unwrap();
    let (code, told, body) = served.send_binary(head.len(), [&head[..], &bytes].concat()).await;
    assert_eq!(code, 200, "{}", String::from_utf8_lossy(&body));
    let (answer, tail) = body.split_at(told.expect("bytes follow"));
    let answer: Value = serde_json::from_slice(answer).unwrap();
    assert_eq!(output(&answer, "logits"), output(&plain, "logits"));
    let class = output(&plain, "class")["data"].as_array().unwrap();
    let expected: Vec<u8> = class.iter().flat_map(|n| n.as_i64().unwrap().to_le_bytes()).collect();
    assert_eq!(output(&answer, "class")["parameters"], json!({ "binary_data_size": expected.len() }));
    assert!(output(&answer, "class")["data"].is_null());
    assert_eq!(&tail[..expected.len()], expected);
    let labels = output(&plain, "label")["data"].as_array().unwrap();
    let size: usize = labels.iter().map(|label| 4 + label.as_str().unwrap().len()).sum();
    assert_eq!(tail.len(), expected.len() + size);

    let mut all = json.clone();
    all.as_object_mut().unwrap().remove("outputs");
    all["parameters"] = json!({ "binary_data_output": true });
    let head = serde_json::to_vec(&all).unwrap();
    let (code, told, body) = served.send_binary(head.len(), [&head[..], &bytes].concat()).await;
    let answer: Value = serde_json::from_slice(&body[..told.unwrap()]).unwrap();
    let sizes = answer["outputs"].as_array().unwrap().iter().map(|o| o["parameters"]["binary_data_size"].as_u64());
    assert_eq!((code, sizes.map(Option::unwrap).sum::<u64>()), (200, (body.len() - told.unwrap()) as u64));

    for (length, body, word) in [
        (head.len(), [&head[..], &bytes[4..]].concat(), "follow the JSON"),
        (head.len(), [&head[..], &bytes, &[0]].concat(), "belong to no input"),
        (head.len() + bytes.len() + 1, [&head[..], &bytes].concat(), "no number up to"),
        (head.len() - 1, [&head[..], &bytes].concat(), "no inference request"),
    ] {
        let (code, _, answer) = served.send_binary(length, body).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(code == 400 && answer.contains(word), "{code} {answer}");
    }
}

#[tokio::test]
async fn models_and_health_are_described() {
    let fixture = Fixture::digits(4);
    let up = served(Some(&fixture), None).await;
    let (_, model) = up.get("/v2/models/digits").await;
    assert_eq!((&model["name"], &model["versions"]), (&json!("digits"), &json!(["4"])));
    assert_eq!(model["inputs"][0], json!({ "name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8] }));
    for path in
        ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/digits/ready", "/v2/models/digits/versions/4/ready"]
    {
        assert_eq!(up.get(path).await.0, 200, "{path}");
    }
    assert_eq!(up.get("/v2/models/digits/versions/5/ready").await.0, 404);
    let (code, told) = up.get("/status").await;
    assert_eq!((code, &told["device"]), (200, &json!("d")));

    let empty = served(None, None).await;
    let (code, answer, later) = empty.call("GET", "/v2/health/ready", Vec::new()).await;
    assert_eq!((code, later), (503, true), "{answer}");
    assert_eq!(empty.get("/v2/health/live").await.0, 200);
    assert_eq!(empty.get("/v2/models/digits").await.0, 404);
}

#[test]
fn the_metrics_are_what_prometheus_reads() {
    let page = metrics::page(&status("127.0.0.1:1".parse().unwrap()));
    let mut family = "";
    for line in page.lines() {
        match line.strip_prefix("# HELP ").or(line.strip_prefix("# TYPE ")) {
            Some(told) => {
                let (name, said) = told.split_once(' ').unwrap();
                assert!(line.starts_with("# HELP") || name == family, "{line}");
                if line.starts_with("# TYPE") {
                    assert_eq!(said, if name.ends_with("_total") { "counter" } else { "gauge" }, "{line}");
                }
                family = name;
            }
            None => {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split('{').next().unwrap();
                assert!(name == family && value.parse::<u64>().is_ok(), "{line}");
            }
        }
    }
    for row in ["petrel_connected 0", "petrel_answers_total{stream=\"digits\"} 0", "petrel_spool_dropped_total 0"] {
        assert!(page.lines().any(|line| line == row), "{row}: {page}");
    }
}

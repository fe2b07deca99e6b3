//! Another server beside the agent: FastAPI and uvicorn over ONNX Runtime, with the same model, asked by the same client
//! in the same run with the same JSON.

use super::*;
use crate::python;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: usize = 3;
const SPELL: Duration = Duration::from_secs(2);
/// Connections that ask without a pause.
const CLIENTS: usize = 2;

/// Answers a second, and memory: of the agent with its model's process, and of the server.
pub(crate) fn measure(programs: &Path) -> anyhow::Result<Value> {
    let (fleet, bundle) = prepared(programs)?;
    let agent = serving(&fleet, &bundle)?;
    let ours = address(&fleet).context("the agent told no address")?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let line = format!(
        "{} {} {} {port}",
        python()?.display(),
        tests.join("oracles/serve.py").display(),
        tests.join("models/digits/model.onnx").display()
    );
    let mut server = fleet.desk.start(&line, "server.log")?;
    let theirs = format!("127.0.0.1:{port}");
    let request = in_json()?;
    wait_for("the other server", || {
        server.runs()?;
        let Ok(mut client) = Client::connect(&theirs) else { return Ok(None) };
        Ok(client.ask(&request).is_ok_and(|(code, _)| code == 200).then_some(()))
    })?;
    let (mut agent_rate, mut server_rate) = (0f64, 0f64);
    for _ in 0..ROUNDS {
        agent_rate = agent_rate.max(rate(&ours, &request)?);
        server_rate = server_rate.max(rate(&theirs, &request)?);
    }
    let own = models(&fleet)?.into_iter().chain([agent.id()]);
    let agent_rss = own.map(|pid| kib(pid, "status", "VmRSS:")).sum::<anyhow::Result<u64>>()?;
    let server_rss = kib(server.id(), "status", "VmRSS:")?;
    Ok(json!({
        "agent": { "per_second": agent_rate, "rss": agent_rss },
        "server": { "per_second": server_rate, "rss": server_rss }
    }))
}

/// Answers a second to clients that ask without a pause.
fn rate(address: &str, request: &Request) -> anyhow::Result<f64> {
    let began = Instant::now();
    let ask = || -> anyhow::Result<u64> {
        let (mut client, mut answers) = (Client::connect(address)?, 0);
        while began.elapsed() < SPELL {
            client.time(request)?;
            answers += 1;
        }
        Ok(answers)
    };
    let answers: anyhow::Result<u64> = thread::scope(|scope| {
        let asking: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|client| client.join().unwrap_or_else(|_| anyhow::bail!("a client panicked"))).sum()
    });
    Ok(answers? as f64 / began.elapsed().as_secs_f64())
}

//! Other servers beside the agent: FastAPI and uvicorn over ONNX Runtime, and MLServer, with the same model, asked by the
//! same client in the same run with the same JSON.

use super::*;
use crate::python;
use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: usize = 3;
const SPELL: Duration = Duration::from_secs(2);
/// Connections that ask without a pause.
const CLIENTS: usize = 2;

/// What starts a server on a port.
type Line<'a> = &'a dyn Fn(u16) -> anyhow::Result<String>;

/// Answers a second, and memory: of the agent with its model's process, and of each server with all of its own.
pub(crate) fn measure(programs: &Path) -> anyhow::Result<Value> {
    let (fleet, bundle) = prepared(programs)?;
    let agent = serving(&fleet, &bundle)?;
    let ours = address(&fleet).context("the agent told no address")?;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = tests.join("models/digits/model.onnx");
    let fastapi = |port| {
        let serve = tests.join("oracles/serve.py");
        Ok(format!("{} {} {} {port}", python("MEASURE_PYTHON")?.display(), serve.display(), model.display()))
    };
    let mlserver = |port| {
        let (grpc, metrics) = (free_port()?, free_port()?);
        Ok(format!(
            "/usr/bin/env MLSERVER_HTTP_PORT={port} MLSERVER_GRPC_PORT={grpc} MLSERVER_METRICS_PORT={metrics} \
             MLSERVER_MODEL_URI={} {} start {}",
            model.display(),
            python("MEASURE_MLSERVER")?.with_file_name("mlserver").display(),
            tests.join("oracles/mlserver").display()
        ))
    };
    let servers: [(&str, Line<'_>); 2] = [("fastapi", &fastapi), ("mlserver", &mlserver)];
    let mut seen = serde_json::Map::new();
    for (name, line) in servers {
        let port = free_port()?;
        let theirs = format!("127.0.0.1:{port}");
        let mut server = fleet.desk.start(&line(port)?, &format!("{name}.log"))?;
        // It leaves behind what it started, when it is killed.
        let _all = Household(server.id());
        let request = in_json()?;
        wait_for(name, || {
            server.runs()?;
            let Ok(mut client) = Client::connect(&theirs) else { return Ok(None) };
            Ok(client.ask(&request).is_ok_and(|(code, _)| code == 200).then_some(()))
        })?;
        let (mut agent_rate, mut server_rate) = (0f64, 0f64);
        for _ in 0..ROUNDS {
            agent_rate = agent_rate.max(rate(&ours, &request)?);
            server_rate = server_rate.max(rate(&theirs, &request)?);
        }
        let (own, other) = (family(agent.id())?, family(server.id())?);
        let rss = |pids: &[u32]| pids.iter().map(|pid| kib(*pid, "status", "VmRSS:")).sum::<anyhow::Result<u64>>();
        let pair = json!({
            "agent": { "per_second": agent_rate, "rss": rss(&own)? },
            "server": { "per_second": server_rate, "rss": rss(&other)? }
        });
        seen.insert(name.into(), pair);
    }
    Ok(seen.into())
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A process that ends with all that it started.
struct Household(u32);

impl Drop for Household {
    fn drop(&mut self) {
        let all = family(self.0).unwrap_or_default().into_iter().map(|pid| pid.to_string());
        let _ = Command::new("kill").arg("-KILL").args(all).status();
    }
}

/// A process and all that it started, theirs too.
fn family(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(child) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end while it is looked at.
        let Ok(stat) = fs::read_to_string(format!("/proc/{child}/stat")) else { continue };
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (parent, child)));
    }
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(&parent) = family.get(at) {
        family.extend(parents.iter().filter(|(of, _)| *of == parent).map(|(_, child)| *child));
        at += 1;
    }
    Ok(family)
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

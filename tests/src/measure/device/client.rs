//! A client that costs next to nothing: one connection that stays open, requests that are written once, answers that are
//! read and not looked at.

use anyhow::{Context, ensure};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Generous: a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request, ready to be sent again and again.
#[derive(Clone)]
pub(crate) struct Request(Vec<u8>);

impl Request {
    pub(crate) fn get(path: &str) -> Self {
        Self(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes())
    }

    /// With a body, of which so much is JSON when bytes follow it.
    pub(crate) fn post(path: &str, json_length: Option<usize>, body: &[u8]) -> Self {
        let kind = if json_length.is_some() { "application/octet-stream" } else { "application/json" };
        let json = json_length.map_or(String::new(), |n| format!("inference-header-content-length: {n}\r\n"));
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n{json}content-length: {length}\r\n\r\n"
        );
        Self([head.as_bytes(), body].concat())
    }
}

/// A connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("nobody answers at {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The code and the body of the answer.
    pub(crate) fn ask(&mut self, request: &Request) -> anyhow::Result<(u16, Vec<u8>)> {
        self.stream.get_mut().write_all(&request.0)?;
        let (mut line, mut code, mut length) = (String::new(), 0, 0);
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "the connection was closed in the middle");
            let said = line.trim_end();
            if said.is_empty() {
                break;
            }
            if let Some(status) = said.strip_prefix("HTTP/1.1 ") {
                code = status.get(..3).and_then(|code| code.parse().ok()).context("an answer without a code")?;
            } else if let Some((name, value)) = said.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().context("an answer without a length")?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((code, body))
    }

    /// How long the answer took, which must be a good one.
    pub(crate) fn time(&mut self, request: &Request) -> anyhow::Result<f64> {
        let began = Instant::now();
        let (code, body) = self.ask(request)?;
        let took = began.elapsed().as_secs_f64();
        ensure!(code == 200, "the answer was {code}: {}", String::from_utf8_lossy(&body));
        Ok(took)
    }
}

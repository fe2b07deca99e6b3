//! A program that others send something to over HTTP: it takes it, or refuses it with another status.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{self, channel};

/// One request as it came.
pub(crate) struct Came {
    /// Its first line.
    pub(crate) line: String,
    /// Its headers, by their names in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// The program.
pub(crate) struct Receiver {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The status that it answers with.
    pub(crate) answer: Arc<AtomicU16>,
    came: mpsc::Receiver<Came>,
}

impl Receiver {
    /// One that answers with this status.
    pub(crate) fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, answer) = (listener.local_addr().unwrap(), Arc::new(AtomicU16::new(status)));
        let (tell, came) = channel();
        let status = answer.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut reader = BufReader::new(stream.unwrap());
                let mut next = || {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    line.trim().to_owned()
                };
                let line = next();
                let heads = std::iter::from_fn(|| Some(next()).filter(|line| !line.is_empty()));
                let heads = heads.filter_map(|line| {
                    let (name, value) = line.split_once(": ")?;
                    Some((name.to_lowercase(), value.to_owned()))
                });
                let headers: BTreeMap<String, String> = heads.collect();
                let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
                reader.read_exact(&mut body).unwrap();
                let status = status.load(Ordering::SeqCst);
                let answer = format!("HTTP/1.1 {status} so\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                reader.get_mut().write_all(answer.as_bytes()).unwrap();
                if tell.send(Came { line, headers, body }).is_err() {
                    return;
                }
            }
        });
        Self { address, answer, came }
    }

    /// What came next, if something did.
    pub(crate) fn came(&self) -> Option<Came> {
        self.came.try_recv().ok()
    }
}

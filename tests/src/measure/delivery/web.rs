//! The same bytes by HTTP, as plainly and as fast as they go: a server that sends a file, with TLS or without, and a client
//! that hashes what comes and writes it down.
//!
//! Decides what an agent's download is compared with: large buffers, nothing copied that need not be, no sync, as none
//! belongs to the agent's own time.

use crate::programs::Desk;
use anyhow::{Context, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

const BUFFER: usize = 256 * 1024;

/// A server of one file, and who believes its certificate. It listens until this program ends.
pub(crate) struct Web {
    url: String,
    agent: ureq::Agent,
    digest: [u8; 32],
}

impl Web {
    /// Serves `file`, with the bridge's certificate where it is to be with TLS.
    pub(crate) fn serve(desk: &Desk, file: PathBuf, tls: bool) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let scheme = if tls { "https" } else { "http" };
        let url = format!("{scheme}://{}/", listener.local_addr()?);
        let config = if tls { Some(Arc::new(certified(desk)?)) } else { None };
        let ca = Certificate::from_pem(&desk.read("fleet/tls/ca.pem")?)?;
        let roots = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[ca])).build();
        let agent = ureq::Agent::config_builder().tls_config(roots).proxy(None).build().new_agent();
        let digest = hashed(&mut File::open(&file)?, &mut io::sink())?;
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that went away has said why.
                let _ = stream.and_then(|stream| answer(stream, config.clone(), &file));
            }
        });
        Ok(Self { url, agent, digest })
    }

    /// Gets the file as `to`; gives the seconds that it took.
    pub(crate) fn fetch(&self, to: &Path) -> anyhow::Result<f64> {
        let began = Instant::now();
        let response = self.agent.get(&self.url).call().context("the server of the comparison does not answer")?;
        let digest = hashed(&mut response.into_body().into_reader(), &mut File::create(to)?)?;
        let seconds = began.elapsed().as_secs_f64();
        ensure!(digest == self.digest, "other bytes came by HTTP than were sent");
        Ok(seconds)
    }
}

fn certified(desk: &Desk) -> anyhow::Result<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(desk.path("fleet/tls/bridge.pem"))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(desk.path("fleet/tls/bridge.key"))?;
    Ok(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?)
}

fn answer(stream: TcpStream, tls: Option<Arc<ServerConfig>>, file: &Path) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match tls {
        Some(config) => {
            let connection = ServerConnection::new(config).map_err(io::Error::other)?;
            send(StreamOwned::new(connection, stream), file)
        }
        None => send(stream, file),
    }
}

fn send(stream: impl Read + Write, file: &Path) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    let mut file = File::open(file)?;
    let length = file.metadata()?.len();
    let to = stream.get_mut();
    write!(to, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")?;
    copied(&mut file, to, |_| ())?;
    to.flush()
}

fn hashed(from: &mut impl Read, to: &mut impl Write) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    copied(from, to, |bytes| hash.update(bytes))?;
    Ok(hash.finalize().into())
}

fn copied(from: &mut impl Read, to: &mut impl Write, mut look: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            length => {
                look(&buffer[..length]);
                to.write_all(&buffer[..length])?;
            }
        }
    }
}

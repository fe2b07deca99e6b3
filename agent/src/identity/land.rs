//! The few words that a device has for land over HTTPS: a request for a certificate, and the answer.
//!
//! One connection for one request. No library for it, since none lets the time be a lower bound; and there is nothing
//! to it: a length, a body, and the end of the connection.

use crate::config::Address;
use crate::fault::Fault;
use protocol::{Enrolled, Exchanged, Problem, encode_json};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use serde::Serialize;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Land is not there, or the connection broke: the request may have been heard all the same.
    #[error("the bridge at {address} does not answer")]
    Unreachable {
        address: String,
        #[source]
        why: io::Error,
    },
    /// Whoever answers cannot prove to be the bridge.
    #[error("the bridge at {address} cannot prove who it is")]
    Impostor {
        address: String,
        #[source]
        why: io::Error,
    },
    /// Land says no.
    #[error("the bridge refuses ({}): {}", .0.code, .0.detail)]
    Refused(Problem),
    /// Land says something else.
    #[error("the bridge at {address} gave an answer that is not understood")]
    Strange {
        address: String,
        #[source]
        why: io::Error,
    },
}

impl Failure {
    /// Told to a person, with what to do.
    pub(crate) fn fault(self) -> Fault {
        let remedy = match &self {
            Failure::Unreachable { .. } => {
                "is it running, and can this device reach that address? The bridge's `api_url` is what join files name; the same file may be tried again"
            }
            Failure::Impostor { .. } => {
                "the join file is of another fleet, the address is another machine's, or the bridge's certificate lacks this name (petrel root init --host) or has expired; ask for a new join file"
            }
            Failure::Refused(problem) => match problem.code.as_str() {
                "token_expired" | "token_used" | "token_unknown" => {
                    "make a new join file on land: petrel devices token new DEVICE --out FILE"
                }
                "token_other_device" => "use the join file of this device, or correct `device` in its configuration",
                "name_taken" => "on land: petrel devices retire DEVICE, or make a join file for another name",
                "too_often" => "wait a minute and try again",
                "not_expired" | "conflict" => "nothing: the certificate in use is still good",
                _ => "look at the bridge's log; both sides should be of one version",
            },
            Failure::Strange { .. } => "is that the address of a Petrel bridge, and of the same version?",
        };
        Fault::new(self.to_string()).because_of(self).remedy(remedy)
    }
}

/// Sends `request` to `path` and reads the certificate in the answer.
///
/// # Errors
/// Why there is none.
pub(crate) fn send(
    address: &Address,
    path: &str,
    tls: Arc<ClientConfig>,
    request: &impl Serialize,
) -> Result<Enrolled, Failure> {
    let shown = format!("{}:{}", address.host, address.port);
    let (words, json) = (format!("POST {path}"), "Content-Type: application/json\r\n");
    let answer = exchange(address, &words, tls, json, &encode_json(request), MAX_ANSWER_BYTES).map_err(|why| {
        let impostor = why.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()).is_some_and(is_their_fault);
        if impostor {
            Failure::Impostor { address: shown.clone(), why }
        } else {
            Failure::Unreachable { address: shown.clone(), why }
        }
    })?;
    let strange = |why: String| Failure::Strange { address: shown.clone(), why: io::Error::other(why) };
    let (status, body) = split(&answer).ok_or_else(|| strange("it is no HTTP".into()))?;
    if status == 200 {
        return Enrolled::read(body).map_err(|e| strange(e.to_string()));
    }
    Err(match Problem::read(body) {
        Ok(problem) => Failure::Refused(problem),
        Err(_) => strange(format!("HTTP status {status}")),
    })
}

/// Whether TLS failed because of what the other side showed.
pub(crate) fn is_their_fault(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::InvalidCertificate(_)
            | rustls::Error::NoCertificatesPresented
            | rustls::Error::PeerIncompatible(_)
            | rustls::Error::PeerMisbehaved(_)
            | rustls::Error::InvalidMessage(_)
            | rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion)
            | rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure)
            | rustls::Error::AlertReceived(rustls::AlertDescription::InsufficientSecurity)
    )
}

/// At most `most` bytes of what land has at `path`, with these headers in the request.
///
/// # Errors
/// What the system said, or what land answered in place of them.
pub(crate) fn get(
    address: &Address,
    path: &str,
    tls: Arc<ClientConfig>,
    headers: &[(&str, String)],
    most: u64,
) -> io::Result<Vec<u8>> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut answer = exchange(address, &format!("GET {path}"), tls, &headers, &[], most + MAX_ANSWER_BYTES)?;
    let Some((status, body)) = split(&answer) else {
        return Err(io::Error::other("the answer is no HTTP, or was cut off"));
    };
    if !matches!(status, 200 | 206) {
        let said = Problem::read(body).map_or(format!("HTTP status {status}"), |p| format!("{}: {}", p.code, p.detail));
        return Err(io::Error::other(format!("the bridge answers {said}")));
    }
    if body.len() as u64 > most {
        return Err(io::Error::other(format!("the bridge gives {} bytes where {most} were asked for", body.len())));
    }
    let begin = answer.len() - body.len();
    drop(answer.drain(..begin));
    Ok(answer)
}

/// Sends a request whose first line begins with `words`, and reads what comes until the connection ends.
fn exchange(
    address: &Address,
    words: &str,
    tls: Arc<ClientConfig>,
    headers: &str,
    body: &[u8],
    most: u64,
) -> io::Result<Vec<u8>> {
    let name = ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
    let mut last = io::Error::other("the name has no address");
    let mut found = None;
    for socket in (address.host.as_str(), address.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&socket, PATIENCE) {
            Ok(stream) => {
                found = Some(stream);
                break;
            }
            Err(why) => last = why,
        }
    }
    let stream = found.ok_or(last)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = StreamOwned::new(ClientConnection::new(tls, name).map_err(io::Error::other)?, stream);
    let (host, port, length) = (&address.host, address.port, body.len());
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    // In one piece, so that it is one record.
    let mut words = format!(
        "{words} HTTP/1.1\r\nHost: {host}:{port}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    .into_bytes();
    words.extend_from_slice(body);
    line.write_all(&words)?;
    line.flush()?;
    let mut answer = Vec::new();
    match line.take(most).read_to_end(&mut answer) {
        // Whoever closes without the last word of TLS has said all: the length is in the answer.
        Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => Ok(answer),
        Err(why) => Err(why),
        Ok(_) => Ok(answer),
    }
}

/// Status and body of an answer whose body has a length.
fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    Some((status, answer.get(end + 4..)?.get(..length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_cut_where_its_length_says() {
        let answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}more";
        assert_eq!(split(answer), Some((401, &b"{}"[..])));
        for bad in
            ["", "HTTP/1.1 200 OK\r\n\r\n{}", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", "SSH-2.0\r\n\r\n"]
        {
            assert_eq!(split(bad.as_bytes()), None, "{bad}");
        }
    }
}

//! A tap on the wire: whoever connects to it is connected to a port of this machine, and what passes is counted, and slowed
//! down if it should be. TLS passes through as it is.
//!
//! Decides nothing of what passes, and does not look at it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, park_timeout};
use std::time::{Duration, Instant};

/// Small beside a chunk, so that a slow wire is slow in each chunk.
const PIECE: usize = 16 * 1024;

/// A tap; no connection is taken any more once it is dropped, and those that there are end with their programs.
pub(crate) struct Tap {
    /// Where it listens on loopback.
    pub(crate) port: u16,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
    over: AtomicBool,
}

impl Tap {
    /// In front of the port `to`; whoever connects receives at most so many bytes a second, where that is said.
    pub(crate) fn start(to: u16, rate: Option<u32>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (port, counts) = (listener.local_addr()?.port(), Arc::<Counts>::default());
        let theirs = counts.clone();
        thread::spawn(move || {
            for near in listener.incoming() {
                if theirs.over.load(Ordering::Relaxed) {
                    return;
                }
                // Nobody behind the tap: whoever came sees the connection end, as without it.
                if let (Ok(near), Ok(far)) = (near, TcpStream::connect((Ipv4Addr::LOCALHOST, to))) {
                    let _ = join(&near, &far, &theirs, rate);
                }
            }
        });
        Ok(Self { port, counts })
    }

    /// Bytes that came from those who connected.
    pub(crate) fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }

    /// Bytes that were sent to them.
    pub(crate) fn received(&self) -> u64 {
        self.counts.received.load(Ordering::Relaxed)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.counts.over.store(true, Ordering::Relaxed);
        // The listener hears of it at the next connection.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn join(near: &TcpStream, far: &TcpStream, counts: &Arc<Counts>, rate: Option<u32>) -> io::Result<()> {
    for end in [near, far] {
        end.set_nodelay(true)?;
    }
    let (out, back) = ((near.try_clone()?, far.try_clone()?), (far.try_clone()?, near.try_clone()?));
    let (sent, received) = (counts.clone(), counts.clone());
    thread::spawn(move || carry(out, None, &sent.sent));
    thread::spawn(move || carry(back, rate, &received.received));
    Ok(())
}

/// Until whoever speaks is gone. What still comes for a listener that is gone counts all the same: it was sent.
fn carry((mut from, mut to): (TcpStream, TcpStream), rate: Option<u32>, count: &AtomicU64) {
    let mut piece = [0; PIECE];
    let mut free = Instant::now();
    let mut heard = true;
    while let Ok(length @ 1..) = from.read(&mut piece) {
        count.fetch_add(length as u64, Ordering::Relaxed);
        if let Some(rate) = rate.filter(|_| heard) {
            free = free.max(Instant::now()) + Duration::from_secs(1).mul_f64(length as f64 / f64::from(rate));
            while let Some(left) = free.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                park_timeout(left);
            }
        }
        heard = heard && to.write_all(&piece[..length]).is_ok();
    }
    let _ = to.shutdown(Shutdown::Write);
}

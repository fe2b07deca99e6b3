//! A door of the local API: so many connections at a time, and none that nobody uses.
//!
//! Whoever comes when all places are taken waits in the system's queue, and is let in when a place is free.

use axum::serve::Listener;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Connections at each door.
pub(super) const MOST: usize = 64;
/// A connection on which nothing moves for so long ends. A request waits a minute for its turn and a minute for its answer at most.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);

/// A listener with places.
pub(super) struct Door<L> {
    listener: L,
    places: Arc<Semaphore>,
    patience: Duration,
}

impl<L: Listener> Door<L> {
    pub(super) fn new(listener: L, most: usize, patience: Duration) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(most)), patience }
    }
}

impl<L: Listener> Listener for Door<L> {
    type Io = Guest<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // Nobody closes the semaphore; without a place nobody would be counted, and that is all.
        let place = self.places.clone().acquire_owned().await.ok();
        let (io, address) = self.listener.accept().await;
        (Guest { io, _place: place, patience: self.patience, idle: Box::pin(sleep(self.patience)) }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that has a place.
pub(super) struct Guest<T> {
    io: T,
    _place: Option<OwnedSemaphorePermit>,
    patience: Duration,
    idle: Pin<Box<Sleep>>,
}

impl<T> Guest<T> {
    /// What moved begins the patience anew; what waits for too long ends.
    fn minded<D>(&mut self, cx: &mut Context<'_>, moved: Poll<io::Result<D>>) -> Poll<io::Result<D>> {
        if moved.is_ready() {
            self.idle.as_mut().reset(Instant::now() + self.patience);
            return moved;
        }
        self.idle.as_mut().poll(cx).map(|()| Err(ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guest<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let moved = Pin::new(&mut this.io).poll_read(cx, buffer);
        this.minded(cx, moved)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guest<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let moved = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.minded(cx, moved)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let moved = Pin::new(&mut this.io).poll_write_vectored(cx, bytes);
        this.minded(cx, moved)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, routing::get};
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

    fn router() -> Router {
        Router::new().route("/", get(async || "here"))
    }

    async fn served(most: usize, patience: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(Door::new(listener, most, patience), router()).into_future());
        address
    }

    async fn ask(io: &mut (impl AsyncWrite + Unpin)) {
        io.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    }

    async fn answered(io: &mut (impl AsyncRead + Unpin)) {
        let mut got = Vec::new();
        while !got.ends_with(b"here") {
            assert!(io.read_buf(&mut got).await.unwrap() > 0, "{}", String::from_utf8_lossy(&got));
        }
    }

    #[tokio::test]
    async fn who_comes_when_all_places_are_taken_waits_for_one() {
        let address = served(MOST, PATIENCE).await;
        let mut guests = Vec::new();
        for _ in 0..MOST {
            let mut guest = TcpStream::connect(address).await.unwrap();
            ask(&mut guest).await;
            answered(&mut guest).await;
            guests.push(guest);
        }
        let mut late = TcpStream::connect(address).await.unwrap();
        ask(&mut late).await;
        for guest in &mut guests {
            ask(guest).await;
            answered(guest).await;
        }
        assert_eq!(late.try_read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(guests.pop());
        answered(&mut late).await;
    }

    #[tokio::test]
    async fn a_connection_that_nobody_uses_gives_its_place_away() {
        let address = served(1, Duration::from_millis(200)).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        ask(&mut idle).await;
        answered(&mut idle).await;
        let mut next = TcpStream::connect(address).await.unwrap();
        ask(&mut next).await;
        answered(&mut next).await;
        assert!(matches!(idle.read(&mut [0; 1]).await, Ok(0) | Err(_)), "it was ended");
    }

    #[tokio::test]
    async fn the_socket_in_the_file_system_has_places_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(axum::serve(Door::new(listener, 1, PATIENCE), router()).into_future());
        let mut first = UnixStream::connect(&path).await.unwrap();
        ask(&mut first).await;
        answered(&mut first).await;
        let mut late = UnixStream::connect(&path).await.unwrap();
        ask(&mut late).await;
        ask(&mut first).await;
        answered(&mut first).await;
        assert_eq!(late.try_read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(first);
        answered(&mut late).await;
    }
}

//! What the agent and a model's process say to each other: frames of a length and postcard bytes, over sockets that
//! only the two of them hold.
//!
//! Decides the form and its limits. The process runs what strangers made of numbers, so what it says is checked here like
//! anything that arrives.

use engine::{Answer, Input, Port};
use protocol::Sandbox;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The largest frame: a request or an answer of sixteen million numbers.
const MAX_FRAME_BYTES: u32 = 64 << 20;
/// Sockets that a process is given at most.
pub(super) const MAX_LANES: usize = 8;

/// The first that a process hears.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    /// The bundle's folder; nothing else may be read.
    pub(super) dir: PathBuf,
    /// Rows for one call of the model.
    pub(super) rows_at_once: Option<usize>,
    /// Bytes that it may take besides what it has when it starts.
    pub(super) memory: u64,
    /// What for.
    pub(super) purpose: Purpose,
}

/// What a process is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Purpose {
    /// It answers requests until its control socket closes.
    Serve,
    /// It runs the golden vectors, tells what came of it, and ends.
    Probe {
        /// Their archive; without one it is enough that the model loads.
        golden: Option<String>,
        /// How near is near enough: absolutely, and as a share.
        tolerance: (f64, f64),
    },
}

/// What a process says once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Word {
    /// It answers from now on.
    Ready {
        /// What the model takes.
        inputs: Vec<Port>,
        /// What it gives.
        outputs: Vec<Port>,
        /// How it is shut in.
        sandbox: Sandbox,
    },
    /// The golden vectors agree.
    Agreed {
        /// Rows that were compared.
        rows: usize,
        /// The largest error.
        worst: f64,
        /// Microseconds that a row took, on average.
        row_us: u64,
    },
    /// The golden vectors disagree.
    Disagreed(String),
    /// The model cannot be loaded or run.
    Unfit(String),
}

/// Why a process does not answer a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum NoAnswer {
    /// The request does not fit the model.
    Request(String),
    /// The model could not.
    Model(String),
}

/// An answer, or why there is none.
pub(super) type Reply = Result<Answer, NoAnswer>;

/// A socket until a moment: whoever is at its other end may send a byte now and then, and gains no time by it.
pub(super) struct Until<'a> {
    /// The socket.
    pub(super) socket: &'a UnixStream,
    /// When it is over.
    pub(super) until: Instant,
}

impl Until<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        match self.until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl Read for Until<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        let mut socket = self.socket;
        socket.read(bytes)
    }
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        let mut socket = self.socket;
        socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a frame.
///
/// # Errors
/// What the system said; `InvalidInput` when it is too large.
pub(super) fn say<T: Serialize>(socket: &mut impl Write, what: &T) -> io::Result<()> {
    // The length goes in front, and both in one write.
    let mut bytes = postcard::to_extend(what, vec![0; 4]).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len() - 4).ok().filter(|length| *length <= MAX_FRAME_BYTES);
    let length = length.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "it is larger than a frame may be"))?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    socket.write_all(&bytes)
}

/// Reads a frame.
///
/// # Errors
/// What the system said; `InvalidData` when it is too large or makes no sense.
pub(super) fn hear<T: DeserializeOwned>(socket: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MAX_FRAME_BYTES {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    // As much is taken as arrives: a length alone costs no memory.
    let mut bytes = Vec::new();
    socket.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != u64::from(length) {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    postcard::from_bytes(&bytes).map_err(|why| io::Error::new(ErrorKind::InvalidData, why))
}

/// Asks for an answer, which must be here in its time.
///
/// # Errors
/// What the system said; `InvalidData` for an answer that contradicts itself.
pub(super) fn ask(socket: &UnixStream, input: &Input, patience: Duration) -> io::Result<Reply> {
    let mut socket = Until { socket, until: Instant::now() + patience };
    say(&mut socket, input)?;
    let reply: Reply = hear(&mut socket)?;
    let whole = |answer: &Answer| answer.outputs.iter().all(|(_, tensor)| tensor.check().is_ok());
    match &reply {
        Ok(answer) if !whole(answer) => {
            let why = "an output holds not as many elements as its shape says";
            Err(io::Error::new(ErrorKind::InvalidData, why))
        }
        _ => Ok(reply),
    }
}

/// Hands sockets over to a process that was just started.
///
/// # Errors
/// What the system said.
pub(super) fn give_lanes(control: &UnixStream, lanes: &[UnixStream]) -> io::Result<()> {
    let fds: Vec<BorrowedFd<'_>> = lanes.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_LANES))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("too many sockets for one message"));
    }
    sendmsg(control, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes them.
///
/// # Errors
/// What the system said.
pub(super) fn take_lanes(control: &UnixStream) -> io::Result<Vec<UnixStream>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_LANES))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(control, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let fds = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok(fds.flatten().map(UnixStream::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Data, Tensor};

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn sockets_and_answers_pass_from_one_side_to_the_other() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        give_lanes(&here, &[far]).unwrap();
        let mut far = take_lanes(&there).unwrap().remove(0);
        let input = Input::Tensors(vec![("x".into(), Tensor::new(vec![2], Data::F32(vec![1.5, f32::NAN])).unwrap())]);
        say(&mut near, &input).unwrap();
        let heard: Input = hear(&mut far).unwrap();
        assert_eq!(format!("{heard:?}"), format!("{input:?}"));
        drop(there);
        assert_eq!(hear::<Word>(&mut here).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_a_process_says_wrongly_is_no_answer() {
        let answered = |bytes: &[u8]| {
            let (here, mut there) = UnixStream::pair().unwrap();
            there.write_all(bytes).unwrap();
            drop(there.shutdown(std::net::Shutdown::Write));
            ask(&here, &Input::Image(Vec::new()), PATIENCE).unwrap_err().kind()
        };
        let framed = |reply: &Reply| {
            let bytes = postcard::to_stdvec(reply).unwrap();
            [&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], &bytes].concat()
        };
        let wrong = Tensor { shape: vec![3], data: Data::F32(vec![1.0]) };
        let reply = Answer { outputs: vec![("y".into(), wrong)], classes: None, top: None, anomalies: None };
        assert_eq!(answered(&framed(&Ok(reply))), ErrorKind::InvalidData);
        assert_eq!(answered(&[255; 4]), ErrorKind::InvalidData);
        assert_eq!(answered(&[1, 0, 0, 0, 77]), ErrorKind::InvalidData);
        // A promise of much that is not kept.
        assert_eq!(answered(&[0, 0, 0, 3, 1]), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn who_sends_a_byte_now_and_then_gains_no_time() {
        let (here, there) = UnixStream::pair().unwrap();
        let (asked, patience) = (Instant::now(), Duration::from_millis(300));
        std::thread::scope(|scope| {
            let there = &there;
            scope.spawn(move || {
                let mut socket = there;
                let _: io::Result<Input> = hear(&mut socket);
                // A frame of a megabyte that comes byte by byte, each long before the time is over.
                let _ = socket.write_all(&[0, 0, 16, 0]);
                there.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                let goes_on = |read: io::Result<usize>| read.is_err_and(|why| why.kind() == ErrorKind::WouldBlock);
                while goes_on(socket.read(&mut [0])) && socket.write_all(&[7]).is_ok() {}
            });
            let failed = ask(&here, &Input::Image(Vec::new()), patience).unwrap_err().kind();
            assert!(matches!(failed, ErrorKind::TimedOut | ErrorKind::WouldBlock), "{failed:?}");
            assert!(asked.elapsed() >= patience);
            drop(here);
        });
    }
}

//! What the agent and a model's process say to each other: frames of a length and postcard bytes, over sockets that
//! only the two of them hold. The process waits for each; the agent waits for none, it has other things to do.
//!
//! Decides the form and its limits. The process runs what strangers made of numbers, so what it says is checked here like
//! anything that arrives.

use engine::{Answer, Port};
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
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The largest frame that a process hears: a request of sixteen million numbers.
pub(super) const MAX_REQUEST_BYTES: u32 = 64 << 20;
/// The largest answer, as the largest body of the local API: what a process says may take many times as much memory here.
const MAX_REPLY_BYTES: u32 = 8 << 20;
/// The largest word: the names and shapes of what a model takes and gives.
pub(super) const MAX_WORD_BYTES: u32 = 256 << 10;
/// The most values that are measured of one request.
pub(super) const MAX_MEASURED: usize = 64 << 10;
/// The most outputs of an answer.
const MAX_OUTPUTS: usize = 256;
/// Characters of what a process says in words.
const MAX_SAID: usize = 300;
/// As much of an answer is made room for at a time.
const READ_BYTES: usize = 64 << 10;
/// Sockets that a process is given at most: more that ask one model at a time only take memory.
pub(super) const MAX_LANES: usize = 4;

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
    Serve {
        /// The file of the baseline against which it measures what it sees; without one it measures nothing.
        baseline: Option<String>,
    },
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

/// An answer, and what was measured of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Given {
    /// The answer.
    pub(crate) answer: Answer,
    /// A value for each feature of the baseline, row after row.
    pub(crate) measured: Vec<f32>,
}

/// An answer, or why there is none.
pub(super) type Reply = Result<Given, NoAnswer>;

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

/// A frame, to be written.
///
/// # Errors
/// `InvalidInput` when it is too large.
pub(super) fn framed<T: Serialize>(what: &T) -> io::Result<Vec<u8>> {
    // The length goes in front, and both in one write.
    let mut bytes = postcard::to_extend(what, vec![0; 4]).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len() - 4).ok().filter(|length| *length <= MAX_REQUEST_BYTES);
    let length = length.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "it is larger than a frame may be"))?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// What a frame that was made here says.
pub(super) fn unframed<T: DeserializeOwned>(frame: &[u8]) -> Option<T> {
    postcard::from_bytes(frame.get(4..)?).ok()
}

/// Writes a frame.
///
/// # Errors
/// What the system said; `InvalidInput` when it is too large.
pub(super) fn say<T: Serialize>(socket: &mut impl Write, what: &T) -> io::Result<()> {
    socket.write_all(&framed(what)?)
}

/// Reads a frame of at most so many bytes.
///
/// # Errors
/// What the system said; `InvalidData` when it is too large or makes no sense.
pub(super) fn hear<T: DeserializeOwned>(socket: &mut impl Read, most: u32) -> io::Result<T> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = fitting(length, most)?;
    // As much is taken as arrives: a length alone costs no memory.
    let mut bytes = Vec::new();
    socket.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() != length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    read(&bytes)
}

fn fitting(length: [u8; 4], most: u32) -> io::Result<usize> {
    let length = u32::from_le_bytes(length);
    let too_long = || io::Error::new(ErrorKind::InvalidData, format!("a frame of {length} bytes"));
    usize::try_from(length).ok().filter(|_| length <= most).ok_or_else(too_long)
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(|why| io::Error::new(ErrorKind::InvalidData, why))
}

/// Writes a question and reads what is answered. Whoever stops waiting leaves the socket of no use.
///
/// # Errors
/// What the system said; `InvalidData` for an answer that makes no sense.
pub(super) async fn ask(socket: &mut tokio::net::UnixStream, question: &[u8]) -> io::Result<Reply> {
    socket.write_all(question).await?;
    let mut bytes = Vec::with_capacity(READ_BYTES);
    let mut whole = 4;
    while bytes.len() < whole {
        bytes.reserve((whole - bytes.len()).min(READ_BYTES));
        if socket.read_buf(&mut bytes).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if let Some(length) = bytes.first_chunk().filter(|_| whole == 4) {
            whole += fitting(*length, MAX_REPLY_BYTES)?;
        }
    }
    if bytes.len() > whole {
        return Err(io::Error::new(ErrorKind::InvalidData, "more than one answer"));
    }
    let sensible = move || understood(&bytes[4..]);
    // What takes long holds nobody else up.
    match whole <= READ_BYTES {
        true => sensible(),
        false => tokio::task::spawn_blocking(sensible).await.map_err(io::Error::other)?,
    }
}

fn understood(bytes: &[u8]) -> io::Result<Reply> {
    match read::<Reply>(bytes)? {
        Ok(given) => check(&given).map(|()| Ok(given)),
        Err(no) => Ok(Err(no.cut())),
    }
}

/// An answer is whatever a process says: its parts must not contradict each other, and no part claims to be more than
/// what came.
fn check(Given { answer, measured }: &Given) -> io::Result<()> {
    let wrong = |why| Err(io::Error::new(ErrorKind::InvalidData, why));
    if measured.len() > MAX_MEASURED {
        return wrong("more was measured than any request shows");
    }
    if answer.outputs.len() > MAX_OUTPUTS {
        return wrong("more outputs than any model has");
    }
    for (_, tensor) in &answer.outputs {
        if tensor.check().is_err() {
            return wrong("an output holds not as many elements as its shape says");
        }
        if tensor.row_count() > tensor.data.len().max(1) {
            return wrong("an output has rows without elements");
        }
    }
    Ok(())
}

impl NoAnswer {
    fn cut(self) -> Self {
        let cut = |why: String| why.chars().filter(|c| !c.is_control()).take(MAX_SAID).collect();
        match self {
            NoAnswer::Request(why) => NoAnswer::Request(cut(why)),
            NoAnswer::Model(why) => NoAnswer::Model(cut(why)),
        }
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
    use engine::{Data, Input, Tensor};

    #[test]
    fn sockets_and_requests_pass_from_one_side_to_the_other() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        give_lanes(&here, &[far]).unwrap();
        let mut far = take_lanes(&there).unwrap().remove(0);
        let input = Input::Tensors(vec![("x".into(), Tensor::new(vec![2], Data::F32(vec![1.5, f32::NAN])).unwrap())]);
        say(&mut near, &input).unwrap();
        let heard: Input = hear(&mut far, MAX_REQUEST_BYTES).unwrap();
        assert_eq!(format!("{heard:?}"), format!("{input:?}"));
        drop(there);
        assert_eq!(hear::<Word>(&mut here, MAX_WORD_BYTES).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    async fn answered(bytes: Vec<u8>) -> io::Result<Reply> {
        let (mut here, mut there) = tokio::net::UnixStream::pair().unwrap();
        let said = async move {
            there.read_exact(&mut [0]).await.unwrap();
            there.write_all(&bytes).await.unwrap();
            there.shutdown().await.unwrap();
        };
        tokio::join!(ask(&mut here, b"?"), said).0
    }

    fn answer(outputs: Vec<(String, Tensor)>) -> Reply {
        let answer = Answer { outputs, classes: None, top: None, anomalies: None };
        Ok(Given { answer, measured: vec![0.5] })
    }

    #[tokio::test]
    async fn what_a_process_says_wrongly_is_no_answer() {
        let output = |shape: Vec<usize>, data| vec![("y".to_owned(), Tensor { shape, data })];
        let one = Data::F32(vec![1.0]);
        let wrong = [
            framed(&answer(output(vec![3], one.clone()))).unwrap(),
            // Rows without end that hold nothing.
            framed(&answer(output(vec![1 << 40, 0], Data::F32(Vec::new())))).unwrap(),
            framed(&answer(vec![output(vec![1], one.clone()).remove(0); MAX_OUTPUTS + 1])).unwrap(),
            [framed(&answer(output(vec![1], one.clone()))).unwrap(), vec![7]].concat(),
            framed(
                &answer(output(vec![1], one.clone()))
                    .map(|given| Given { measured: vec![0.0; MAX_MEASURED + 1], ..given }),
            )
            .unwrap(),
            vec![255; 4],
            vec![1, 0, 0, 0, 77],
        ];
        for bytes in wrong {
            assert_eq!(answered(bytes.clone()).await.unwrap_err().kind(), ErrorKind::InvalidData, "{bytes:?}");
        }
        // A promise of much that is not kept, and one that is larger than any answer.
        assert_eq!(answered(vec![0, 0, 0x7f, 0, 1]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(answered(vec![0, 0, 0, 1]).await.unwrap_err().kind(), ErrorKind::InvalidData);
        assert!(answered(framed(&answer(output(vec![1], one))).unwrap()).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_large_arrives_and_what_is_said_in_words_is_cut() {
        let numbers: Vec<f32> = (0..100_000u32).map(|n| n as f32).collect();
        let whole = answer(vec![("y".into(), Tensor::new(vec![100_000], Data::F32(numbers)).unwrap())]);
        assert_eq!(format!("{:?}", answered(framed(&whole).unwrap()).await.unwrap()), format!("{whole:?}"));
        let long: Reply = Err(NoAnswer::Model("x\u{7}".repeat(1_000)));
        let Ok(Err(NoAnswer::Model(why))) = answered(framed(&long).unwrap()).await else { panic!("no answer") };
        assert_eq!(why, "x".repeat(MAX_SAID));
    }

    /// Bounded, as the bodies of the fuzz targets are: the engine is too large for those.
    #[test]
    fn no_bytes_of_a_process_break_the_agent() {
        let mut dice = fastrand::Rng::with_seed(7);
        let outputs = vec![("y".into(), Tensor::new(vec![2, 2], Data::F32(vec![1.0; 4])).unwrap())];
        let labels = vec![("z".into(), Tensor::new(vec![1], Data::Text(vec!["seven".into()])).unwrap())];
        for honest in [answer(outputs), answer(labels), Err(NoAnswer::Model("no".into()))] {
            let honest = postcard::to_stdvec(&honest).unwrap();
            assert!(understood(&honest).is_ok());
            for _ in 0..5_000 {
                let mut bytes = honest.clone();
                for _ in 0..dice.usize(1..5) {
                    let at = dice.usize(..bytes.len());
                    match dice.u8(..3) {
                        0 => bytes[at] = dice.u8(..),
                        1 => drop(bytes.splice(at..at, std::iter::repeat_n(0xff, dice.usize(1..9)))),
                        _ => bytes.truncate(at + 1),
                    }
                }
                if let Ok(Ok(given)) = understood(&bytes) {
                    assert!(crate::infer::rows(given.answer, None, 1).len() <= bytes.len());
                }
            }
        }
    }

    #[test]
    fn who_sends_a_byte_now_and_then_gains_no_time() {
        let (here, there) = UnixStream::pair().unwrap();
        let (asked, patience) = (Instant::now(), Duration::from_millis(300));
        std::thread::scope(|scope| {
            let there = &there;
            scope.spawn(move || {
                let mut socket = there;
                // A frame of many bytes that come one by one, each long before the time is over.
                let _ = socket.write_all(&[0, 0, 1, 0]);
                there.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                let goes_on = |read: io::Result<usize>| read.is_err_and(|why| why.kind() == ErrorKind::WouldBlock);
                while goes_on(socket.read(&mut [0])) && socket.write_all(&[7]).is_ok() {}
            });
            let mut socket = Until { socket: &here, until: asked + patience };
            let failed = hear::<Word>(&mut socket, MAX_WORD_BYTES).unwrap_err().kind();
            assert!(matches!(failed, ErrorKind::TimedOut | ErrorKind::WouldBlock), "{failed:?}");
            assert!(asked.elapsed() >= patience);
            drop(here);
        });
    }
}

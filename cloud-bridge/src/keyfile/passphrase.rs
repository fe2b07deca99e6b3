//! The passphrase of keys that lie encrypted: from a file, a descriptor, or a terminal.
//!
//! Decides where a passphrase may come from: never from arguments or the environment, which others
//! can read. What it opens is decided by whoever asks.

use crate::fault::Fault;
use anyhow::Context;
use ed25519_dalek::pkcs8::spki::der::zeroize::Zeroizing;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::cell::OnceCell;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The longest passphrase, in bytes.
const MAX_BYTES: usize = 1024;

/// A passphrase that is asked for when the first key needs it, once.
#[derive(Default)]
pub(crate) struct Passphrase {
    file: Option<PathBuf>,
    said: OnceCell<Zeroizing<String>>,
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passphrase").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Passphrase {
    /// From the first line of `file`, which may be `/dev/fd/3`; without one, from the terminal.
    pub(crate) fn from(file: Option<PathBuf>) -> Self {
        Self { file, said: OnceCell::new() }
    }

    /// The passphrase that opens `what`.
    ///
    /// # Errors
    /// When nobody can be asked, or the file cannot be used.
    pub(super) fn opening(&self, what: &Path) -> anyhow::Result<&str> {
        self.once(|| match &self.file {
            Some(file) => read(file),
            None => Terminal::open(what)?.ask(&format!("passphrase of {}: ", what.display())),
        })
    }

    /// A new passphrase; at a terminal it is asked for twice.
    ///
    /// # Errors
    /// When nobody can be asked, the file cannot be used, or the two differ.
    pub(super) fn new_for(&self, what: &Path) -> anyhow::Result<&str> {
        self.once(|| {
            let Some(file) = &self.file else {
                let mut terminal = Terminal::open(what)?;
                let said = terminal.ask(&format!("new passphrase for {}: ", what.display()))?;
                let again = terminal.ask("the same again: ")?;
                return if said == again { Ok(said) } else { Err(Fault::new("the two passphrases differ").into()) };
            };
            read(file)
        })
    }

    fn once(&self, ask: impl FnOnce() -> anyhow::Result<Zeroizing<String>>) -> anyhow::Result<&str> {
        if self.said.get().is_none() {
            let said = ask()?;
            if said.is_empty() {
                return Err(Fault::new("the passphrase is empty").remedy("choose one of several words").into());
            }
            // Nobody else sets it: it was empty above.
            let _ = self.said.set(said);
        }
        Ok(self.said.get().map(|said| said.as_str()).unwrap_or_default())
    }
}

/// The first line of a file that nobody else can read, or of a pipe.
fn read(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let cannot = || format!("cannot read the passphrase from {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    let found = file.metadata().with_context(cannot)?;
    if found.is_file() && found.mode() & 0o077 != 0 {
        let fault = Fault::new(format!("the passphrase file {} can be read by others", path.display()));
        return Err(fault.remedy(format!("run: chmod 600 {}", path.display())).into());
    }
    first_line(file).with_context(cannot)
}

/// Reads one line and no more, without leaving copies of it behind.
fn first_line(mut from: impl Read) -> anyhow::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_BYTES));
    let mut byte = [0];
    while from.read(&mut byte)? == 1 && byte != *b"\n" {
        if line.len() == MAX_BYTES {
            return Err(Fault::new(format!("a passphrase has at most {MAX_BYTES} bytes")).into());
        }
        line.push(byte[0]);
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    let text = std::str::from_utf8(&line).map_err(|_| Fault::new("a passphrase is UTF-8 text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// The terminal of whoever runs the command, whatever its standard streams are.
struct Terminal(File);

impl Terminal {
    fn open(what: &Path) -> anyhow::Result<Self> {
        let nobody = |e| {
            Fault::new(format!("{} needs a passphrase", what.display()))
                .because(format!("there is no terminal to ask at: {e}"))
                .remedy("give --passphrase-file FILE; /dev/fd/3 is a file as well")
        };
        Ok(Self(OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(nobody)?))
    }

    /// One line, which is not shown while it is typed.
    fn ask(&mut self, question: &str) -> anyhow::Result<Zeroizing<String>> {
        let cannot = "cannot ask at the terminal";
        self.0.write_all(question.as_bytes()).context(cannot)?;
        let shown = tcgetattr(&self.0).context(cannot)?;
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&self.0, OptionalActions::Flush, &hidden).context(cannot)?;
        let said = first_line(&self.0);
        tcsetattr(&self.0, OptionalActions::Flush, &shown).context(cannot)?;
        self.0.write_all(b"\n").context(cannot)?;
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_the_passphrase() {
        for (bytes, said) in [("one two\nthree", "one two"), ("one", "one"), ("one\r\n", "one"), ("\n", "")] {
            assert_eq!(*first_line(bytes.as_bytes()).unwrap(), said);
        }
        assert!(first_line(&[b'x'; MAX_BYTES + 1][..]).is_err());
        assert!(first_line(&b"\xff\n"[..]).is_err());
    }

    #[test]
    fn it_is_not_shown() {
        let passphrase = Passphrase::from(None);
        passphrase.once(|| Ok(Zeroizing::new("swordfish".into()))).unwrap();
        assert!(!format!("{passphrase:?}").contains("swordfish"));
    }
}

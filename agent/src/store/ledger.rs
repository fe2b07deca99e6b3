//! The ledger on disk: two slots that take turns, so that one of them is always whole.
//!
//! Decides which slot is believed and which is written next. What a ledger says is not known here.
//!
//! A slot is one line `petrel-ledger 1 <number> <sha-256 of the rest and the number>`, then JSON.

use crate::fault::{Fault, told};
use agent_core::Ledger;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use trust::Digest;

const SLOTS: [&str; 2] = ["ledger.a", "ledger.b"];
const MAGIC: &str = "petrel-ledger 1";
const MAX_LEDGER_BYTES: u64 = 4 << 20;

/// Holds a state folder for this process alone, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the folder, which is made when it is not there.
    ///
    /// # Errors
    /// When another agent has it, or it cannot be written.
    pub(crate) fn take(state: &Path) -> Result<Self, Fault> {
        let unusable = |why: io::Error| {
            Fault::new(format!("cannot use the state folder {}", state.display()))
                .because(why)
                .remedy("make it writable for the agent, or choose another with the key `state`")
        };
        fs::create_dir_all(state).map_err(unusable)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(state.join("lock"));
        let file = file.map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                Err(Fault::new(format!("another agent uses the state folder {}", state.display()))
                    .because("its lock is held")
                    .remedy("stop the other agent, or give this one another folder with the key `state`"))
            }
            Err(TryLockError::Error(why)) => Err(unusable(why)),
        }
    }
}

/// The two slots.
#[derive(Debug)]
pub(crate) struct LedgerStore {
    state: PathBuf,
    /// The number of the ledger that was read or written last.
    number: u64,
    /// The slot that is written next: never the one that is believed.
    next: usize,
}

/// A slot that is there and cannot be believed.
#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    #[error("it has more than {MAX_LEDGER_BYTES} bytes")]
    Size,
    #[error("it is cut short or changed")]
    Torn,
    #[error("it is whole, but not of a form that this agent reads: {0}")]
    Form(#[from] serde_json::Error),
}

impl LedgerStore {
    /// Reads the newest whole slot. With none the device is as it left the factory, which is logged as
    /// an error when there was something once.
    ///
    /// # Errors
    /// When no slot is whole and the disk did not let one be read: it may be the one that is.
    pub(crate) fn open(state: &Path) -> io::Result<(Self, Ledger)> {
        let mut newest: Option<(u64, usize, Ledger)> = None;
        let mut damages = Vec::new();
        for (slot, name) in SLOTS.iter().enumerate() {
            match read(&state.join(name)) {
                Ok(Some((number, ledger))) if newest.as_ref().is_none_or(|(n, ..)| number > *n) => {
                    newest = Some((number, slot, ledger));
                }
                Ok(_) => {}
                Err(damage) => {
                    tracing::warn!(slot = name, "a slot of the ledger is not believed: {}", told(&damage));
                    damages.push(damage);
                }
            }
        }
        if newest.is_none() && !damages.is_empty() {
            for damage in damages {
                if let Damage::Read(error) = damage {
                    return Err(error);
                }
            }
            tracing::error!("no slot of the ledger is whole: the device begins anew, as it left the factory");
        }
        let (number, slot, ledger) = newest.unwrap_or((0, 1, Ledger::default()));
        Ok((Self { state: state.to_owned(), number, next: 1 - slot }, ledger))
    }

    /// Writes the ledger over the older slot. The newer one is untouched, so a failure loses nothing.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn save(&mut self, ledger: &Ledger) -> io::Result<()> {
        let payload = serde_json::to_vec(ledger)?;
        let number = self.number + 1;
        let mut file = File::create(self.state.join(SLOTS[self.next]))?;
        file.write_all(format!("{MAGIC} {number} {}\n", digest(number, &payload)).as_bytes())?;
        file.write_all(&payload)?;
        file.sync_all()?;
        super::sync_dir(&self.state)?;
        self.number = number;
        self.next = 1 - self.next;
        Ok(())
    }
}

fn digest(number: u64, payload: &[u8]) -> Digest {
    let hash = Sha256::new().chain_update(number.to_be_bytes()).chain_update(payload);
    Digest(hash.finalize().into())
}

fn read(path: &Path) -> Result<Option<(u64, Ledger)>, Damage> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|f| f.take(MAX_LEDGER_BYTES + 1).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    if bytes.len() as u64 > MAX_LEDGER_BYTES {
        return Err(Damage::Size);
    }
    let end = bytes.iter().position(|b| *b == b'\n').ok_or(Damage::Torn)?;
    let (header, payload) = (&bytes[..end], &bytes[end + 1..]);
    let header = std::str::from_utf8(header).ok().and_then(|h| h.strip_prefix(MAGIC)).ok_or(Damage::Torn)?;
    let (number, sum) = header.trim_start().split_once(' ').ok_or(Damage::Torn)?;
    let number: u64 = number.parse().map_err(|_| Damage::Torn)?;
    if sum.parse() != Ok(digest(number, payload)) {
        return Err(Damage::Torn);
    }
    Ok(Some((number, serde_json::from_slice(payload)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn booted(boot: u64) -> Ledger {
        Ledger { boot, ..Ledger::default() }
    }

    /// A state folder in which the ledgers 1 to `n` were saved.
    fn saved(n: u64) -> tempfile::TempDir {
        let state = tempfile::tempdir().unwrap();
        let (mut store, _) = LedgerStore::open(state.path()).unwrap();
        for boot in 1..=n {
            store.save(&booted(boot)).unwrap();
        }
        state
    }

    fn found(state: &tempfile::TempDir) -> u64 {
        LedgerStore::open(state.path()).unwrap().1.boot
    }

    #[test]
    fn the_newest_ledger_is_read_and_the_slots_take_turns() {
        for n in 0..5 {
            assert_eq!(found(&saved(n)), n);
        }
        let state = saved(1);
        for boot in 2..6 {
            let (mut store, last) = LedgerStore::open(state.path()).unwrap();
            assert_eq!(last.boot, boot - 1);
            store.save(&booted(boot)).unwrap();
        }
        assert_eq!(found(&state), 5);
    }

    #[test]
    fn a_write_cut_anywhere_leaves_the_ledger_before_it() {
        let state = saved(4);
        let newest = state.path().join("ledger.b");
        let whole = fs::read(&newest).unwrap();
        for cut in 0..whole.len() {
            fs::write(&newest, &whole[..cut]).unwrap();
            assert_eq!(found(&state), 3, "cut at {cut}");
        }
        fs::write(&newest, &whole).unwrap();
        assert_eq!(found(&state), 4);
    }

    #[test]
    fn any_byte_changed_makes_a_slot_unbelievable() {
        let state = saved(4);
        let newest = state.path().join("ledger.b");
        let whole = fs::read(&newest).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x01;
            fs::write(&newest, &changed).unwrap();
            assert_eq!(found(&state), 3, "changed at {at}");
        }
    }

    #[test]
    fn the_slot_written_next_is_never_the_one_believed() {
        let state = saved(4);
        fs::write(state.path().join("ledger.b"), "torn").unwrap();
        let (mut store, last) = LedgerStore::open(state.path()).unwrap();
        assert_eq!(last.boot, 3);
        store.save(&booted(9)).unwrap();
        fs::write(state.path().join("ledger.b"), "torn again").unwrap();
        assert_eq!(found(&state), 3);
    }

    #[test]
    fn with_no_whole_slot_the_device_begins_anew() {
        let state = saved(2);
        for slot in SLOTS {
            fs::write(state.path().join(slot), "torn").unwrap();
        }
        let (mut store, ledger) = LedgerStore::open(state.path()).unwrap();
        assert_eq!(ledger, Ledger::default());
        store.save(&booted(1)).unwrap();
        assert_eq!(found(&state), 1);
    }

    #[test]
    fn a_slot_that_the_disk_does_not_give_is_not_taken_for_lost() {
        let state = saved(2);
        let slot = state.path().join("ledger.b");
        fs::remove_file(&slot).unwrap();
        fs::create_dir(&slot).unwrap();
        assert_eq!(found(&state), 1, "the other one is whole");
        fs::write(state.path().join("ledger.a"), "torn").unwrap();
        LedgerStore::open(state.path()).unwrap_err();
    }

    #[test]
    fn two_agents_never_share_a_folder() {
        let state = tempfile::tempdir().unwrap();
        let held = Lock::take(state.path()).unwrap();
        let fault = Lock::take(state.path()).unwrap_err();
        assert!(fault.to_string().contains("another agent"), "{fault}");
        drop(held);
        Lock::take(state.path()).unwrap();
    }
}

//! The ledger on disk: two slots that take turns, so that one of them is always whole.
//!
//! Decides which slot is believed, which is written next, and whether a ledger was lost or never there.
//! What a ledger says is not known here, nor what a device may do that lost its own.
//!
//! A slot is one line `petrel-ledger <format> <number> <sum>`, then the payload. In format 1 the sum is the
//! SHA-256 of the number (eight bytes, big-endian) and the payload, which is JSON. In every later
//! format it is that of the format, the number and the payload, so that no damage looks like a format.

use super::disk::{Disk, Door, How, host};
use crate::fault::{Fault, told};
use agent_core::Ledger;
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use trust::Digest;

const SLOTS: [&str; 2] = ["ledger.a", "ledger.b"];
/// There since the first ledger was saved: without it, and without slots, there never was one.
const MARK: &str = "ledger.begun";
const MARK_TEXT: &[u8] = b"This device has kept a ledger. If its slots are gone, it knows that it forgot.\n";
const MAGIC: &str = "petrel-ledger ";
const FORMAT: u64 = 1;
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
        prepare(&*host(), state).map_err(unusable)?;
        let path = state.join("lock");
        let made = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        // Nothing stays open to be written: the disk under a running agent can be made read-only, and it starts on such a
        // one too.
        let file = File::open(&path).map_err(|why| unusable(made.err().unwrap_or(why)))?;
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

/// Makes the state folder, durably: what is kept in it is worth no more than its name.
pub(super) fn prepare(disk: &dyn Disk, state: &Path) -> io::Result<()> {
    let absent = |dir: &Path| disk.has(dir).map(|there| !there);
    let mut made = Vec::new();
    for dir in state.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
        // The state folder may be there and not durable: a start before this one was cut short.
        if dir == state || absent(dir)? {
            made.push(dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new(".")));
        }
    }
    disk.make_dirs(state)?;
    for above in made {
        match disk.sync_dir(above) {
            // Whoever may not open the folder above did not make this one either.
            Err(error) if error.kind() != ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The two slots.
#[derive(Debug)]
pub(crate) struct LedgerStore {
    disk: Door,
    state: PathBuf,
    /// The number of the ledger that was read or written last.
    number: u64,
    /// The slot that is written next: never the one that is believed.
    next: usize,
    marked: bool,
}

/// What a state folder knows of the device's past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recalled {
    /// Nothing was ever kept: the device is as it left the factory.
    Never,
    /// The newest ledger that is whole.
    Whole(Box<Ledger>),
    /// A ledger was kept, and no slot of it is whole: the device knows that it forgot.
    Lost,
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
    #[error(transparent)]
    Foreign(#[from] Foreign),
}

/// A slot that is whole and that this agent cannot read. It is no damage: it may hold newer counters
/// than the other one, so nothing is begun from either.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Foreign {
    #[error(
        "it has format {0}, this agent reads {FORMAT}: start the agent that wrote it, or give this one another state folder"
    )]
    Format(u64),
    #[error(
        "it is whole and says what this agent does not know ({0}): start the agent that wrote it, or give this one another state folder"
    )]
    Content(serde_json::Error),
}

impl LedgerStore {
    /// Reads the newest whole slot.
    ///
    /// # Errors
    /// When a slot was written by another agent, or no slot is whole and the disk did not let one be
    /// read: it may be the one that is.
    pub(crate) fn open(disk: Door, state: &Path) -> io::Result<(Self, Recalled)> {
        let mut newest: Option<(u64, usize, Ledger)> = None;
        let mut damages = Vec::new();
        for (slot, name) in SLOTS.iter().enumerate() {
            match read(&*disk, &state.join(name)) {
                Ok(Some((number, ledger))) if newest.as_ref().is_none_or(|(n, ..)| number > *n) => {
                    newest = Some((number, slot, ledger));
                }
                Ok(_) => {}
                Err(Damage::Foreign(foreign)) => {
                    let why = format!("the slot {name} is another agent's: {foreign}");
                    return Err(io::Error::new(ErrorKind::Unsupported, why));
                }
                Err(damage) => {
                    tracing::warn!(slot = name, "a slot of the ledger is not believed: {}", told(&damage));
                    damages.push(damage);
                }
            }
        }
        let marked = disk.has(&state.join(MARK))?;
        let mut store = Self { disk, state: state.to_owned(), number: 0, next: 0, marked };
        if let Some((number, slot, ledger)) = newest {
            (store.number, store.next) = (number, 1 - slot);
            return Ok((store, Recalled::Whole(Box::new(ledger))));
        }
        if damages.is_empty() && !marked {
            return Ok((store, Recalled::Never));
        }
        for damage in damages {
            if let Damage::Read(error) = damage {
                return Err(error);
            }
        }
        tracing::error!("no slot of the ledger is whole: the device has lost its memory");
        Ok((store, Recalled::Lost))
    }

    /// Puts the ledger in the place of the older slot. The newer one is untouched, and the older one is
    /// replaced and not overwritten: what a disk failed to write is never taken for a slot.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn save(&mut self, ledger: &Ledger) -> io::Result<()> {
        let payload = serde_json::to_vec(ledger)?;
        let number = self.number + 1;
        let mut slot = format!("{MAGIC}{FORMAT} {number} {}\n", sum(FORMAT, number, &payload)).into_bytes();
        slot.extend(payload);
        self.disk.replace(&self.state.join(SLOTS[self.next]), &slot, How::Fresh)?;
        if !self.marked {
            self.disk.replace(&self.state.join(MARK), MARK_TEXT, How::Fresh)?;
            self.marked = true;
        }
        self.number = number;
        self.next = 1 - self.next;
        Ok(())
    }
}

fn sum(format: u64, number: u64, payload: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    if format != FORMAT {
        hash.update(format.to_be_bytes());
    }
    Digest(hash.chain_update(number.to_be_bytes()).chain_update(payload).finalize().into())
}

/// A slot; a disk that fails once is asked again, since the other slot may be an older one.
fn read(disk: &dyn Disk, path: &Path) -> Result<Option<(u64, Ledger)>, Damage> {
    let bytes = match disk.read(path, MAX_LEDGER_BYTES).or_else(|_| disk.read(path, MAX_LEDGER_BYTES)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if bytes.len() as u64 > MAX_LEDGER_BYTES {
        return Err(Damage::Size);
    }
    parse(&bytes).map(Some)
}

fn parse(bytes: &[u8]) -> Result<(u64, Ledger), Damage> {
    let end = bytes.iter().position(|b| *b == b'\n').ok_or(Damage::Torn)?;
    let (header, payload) = (&bytes[..end], &bytes[end + 1..]);
    let header = std::str::from_utf8(header).ok().and_then(|h| h.strip_prefix(MAGIC)).ok_or(Damage::Torn)?;
    let mut words = header.split(' ');
    let mut word = || words.next().ok_or(Damage::Torn);
    let (format, number, said) = (word()?, word()?, word()?);
    let whole = |text: &str| text.parse::<u64>().map_err(|_| Damage::Torn);
    let (format, number) = (whole(format)?, whole(number)?);
    if said.parse() != Ok(sum(format, number, payload)) {
        return Err(Damage::Torn);
    }
    if format != FORMAT {
        return Err(Foreign::Format(format).into());
    }
    Ok((number, serde_json::from_slice(payload).map_err(Foreign::Content)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn booted(boot: u64) -> Ledger {
        Ledger { boot, ..Ledger::default() }
    }

    fn open(state: &tempfile::TempDir) -> (LedgerStore, Recalled) {
        LedgerStore::open(host(), state.path()).unwrap()
    }

    /// A state folder in which the ledgers 1 to `n` were saved.
    fn saved(n: u64) -> tempfile::TempDir {
        let state = tempfile::tempdir().unwrap();
        let (mut store, _) = open(&state);
        for boot in 1..=n {
            store.save(&booted(boot)).unwrap();
        }
        state
    }

    /// The boot of the ledger that is believed; none when there never was one.
    fn found(state: &tempfile::TempDir) -> Option<u64> {
        match open(state).1 {
            Recalled::Never => None,
            Recalled::Whole(ledger) => Some(ledger.boot),
            Recalled::Lost => panic!("the ledger is lost"),
        }
    }

    /// A slot of another format, with the sum that every later format has.
    fn of_format(format: u64, number: u64, payload: &[u8]) -> Vec<u8> {
        let header = format!("{MAGIC}{format} {number} {}\n", sum(format, number, payload));
        [header.as_bytes(), payload].concat()
    }

    #[test]
    fn the_newest_ledger_is_read_and_the_slots_take_turns() {
        for n in 1..5 {
            assert_eq!(found(&saved(n)), Some(n));
        }
        let state = saved(1);
        for boot in 2..6 {
            let (mut store, _) = open(&state);
            assert_eq!(found(&state), Some(boot - 1));
            store.save(&booted(boot)).unwrap();
        }
        assert_eq!(found(&state), Some(5));
    }

    #[test]
    fn t77_a_slot_cut_anywhere_leaves_the_ledger_before_it() {
        let state = saved(4);
        let newest = state.path().join("ledger.b");
        let whole = fs::read(&newest).unwrap();
        for cut in 0..whole.len() {
            fs::write(&newest, &whole[..cut]).unwrap();
            assert_eq!(found(&state), Some(3), "cut at {cut}");
        }
        fs::write(&newest, &whole).unwrap();
        assert_eq!(found(&state), Some(4));
    }

    #[test]
    fn t77_any_bit_flipped_makes_a_slot_unbelievable() {
        let state = saved(4);
        let newest = state.path().join("ledger.b");
        let whole = fs::read(&newest).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut changed = whole.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            fs::write(&newest, &changed).unwrap();
            assert_eq!(found(&state), Some(3), "bit {bit}");
        }
    }

    #[test]
    fn the_slot_written_next_is_never_the_one_believed() {
        let state = saved(4);
        fs::write(state.path().join("ledger.b"), "torn").unwrap();
        let (mut store, _) = open(&state);
        store.save(&booted(9)).unwrap();
        fs::write(state.path().join("ledger.b"), "torn again").unwrap();
        assert_eq!(found(&state), Some(3));
    }

    #[test]
    fn t78_a_ledger_that_is_lost_is_told_from_one_that_never_was() {
        let never = tempfile::tempdir().unwrap();
        assert_eq!(open(&never).1, Recalled::Never);
        for n in [1, 2, 5] {
            let torn = saved(n);
            for slot in SLOTS.iter().filter(|slot| torn.path().join(slot).exists()) {
                fs::write(torn.path().join(slot), "torn").unwrap();
            }
            assert_eq!(open(&torn).1, Recalled::Lost, "torn after {n}");
            let gone = saved(n);
            for slot in SLOTS.iter().filter(|slot| gone.path().join(slot).exists()) {
                fs::remove_file(gone.path().join(slot)).unwrap();
            }
            assert_eq!(open(&gone).1, Recalled::Lost, "gone after {n}");
            let (mut store, _) = open(&gone);
            store.save(&booted(1)).unwrap();
            assert_eq!(found(&gone), Some(1));
        }
    }

    #[test]
    fn t78_a_slot_of_another_agent_is_neither_damage_nor_overwritten() {
        let (payload, unknown) = (serde_json::to_vec(&booted(7)).unwrap(), br#"{"boot":7,"moon":1}"#);
        for slot in [of_format(2, 5, &payload), of_format(900, 5, b"\x00\xff"), of_format(1, 5, unknown)] {
            for name in SLOTS {
                let state = saved(4);
                let before = fs::read(state.path().join(SLOTS[0])).unwrap();
                fs::write(state.path().join(name), &slot).unwrap();
                let error = LedgerStore::open(host(), state.path()).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unsupported);
                assert!(error.to_string().contains("start the agent that wrote it"), "{error}");
                assert_eq!(fs::read(state.path().join(name)).unwrap(), slot);
                assert!(name == SLOTS[0] || fs::read(state.path().join(SLOTS[0])).unwrap() == before);
            }
        }
    }

    #[test]
    fn t78_a_damaged_format_is_damage() {
        let state = saved(4);
        let newest = state.path().join("ledger.b");
        let text = fs::read_to_string(&newest).unwrap();
        for format in ["0", "2", "3", "17", "", "-1"] {
            fs::write(&newest, text.replacen("ledger 1 ", &format!("ledger {format} "), 1)).unwrap();
            assert_eq!(found(&state), Some(3), "format {format}");
        }
    }

    #[test]
    fn a_slot_that_the_disk_does_not_give_is_not_taken_for_lost() {
        let state = saved(2);
        let slot = state.path().join("ledger.b");
        fs::remove_file(&slot).unwrap();
        fs::create_dir(&slot).unwrap();
        assert_eq!(found(&state), Some(1), "the other one is whole");
        fs::write(state.path().join("ledger.a"), "torn").unwrap();
        LedgerStore::open(host(), state.path()).unwrap_err();
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

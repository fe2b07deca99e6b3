//! The audit log: who did what, in lines that hold each other, so that none can be changed unseen.
//!
//! Each line carries the SHA-256 of the digest before it and of its own text. A line that is edited,
//! removed, moved or repeated is named by [`Verifier`]. What the lines alone cannot show is a log whose
//! end was cut off, or that was written anew from some line on; a [`Head`] that was signed and kept
//! elsewhere does. Where lines are stored, who may read them and who signs heads is not known here.

use crate::UnixMillis;
use serde::{Deserialize, Serialize};
use trust::Digest;

/// The most characters of a name, of an action and of an outcome.
const MAX_WORD: usize = 96;
/// The action of the line that says that old ones go.
pub const TRIMMED: &str = "audit.trim";
/// The most characters of a subject.
const MAX_SUBJECT: usize = 512;

/// Who did what, and what came of it: a line before it has its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// A token's name, a device, or a part of the bridge.
    pub who: String,
    /// What, as a word: `device.approve`.
    pub action: String,
    /// Of what or on what.
    pub subject: String,
    /// `done`, or the code of the refusal.
    pub outcome: String,
    /// The request that asked for it, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

impl Deed {
    /// A deed that no request asked for. Words may come from strangers: they are cut, and hold nothing
    /// that a terminal would obey.
    pub fn new(who: &str, action: &str, subject: &str, outcome: &str) -> Self {
        Self {
            who: plain(who, MAX_WORD),
            action: plain(action, MAX_WORD),
            subject: plain(subject, MAX_SUBJECT),
            outcome: plain(outcome, MAX_WORD),
            request: None,
        }
    }

    /// The same as asked for by a request.
    pub fn asked_by(mut self, request: &str) -> Self {
        self.request = Some(plain(request, MAX_WORD));
        self
    }
}

fn plain(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its number; the first line is 1.
    pub seq: u64,
    /// Milliseconds since 1970, by land's clock.
    pub at: UnixMillis,
    /// See [`Deed::who`].
    pub who: String,
    /// See [`Deed::action`].
    pub action: String,
    /// See [`Deed::subject`].
    pub subject: String,
    /// See [`Deed::outcome`].
    pub outcome: String,
    /// See [`Deed::request`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// A line as it is kept: the very bytes count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// An [`Entry`] in compact JSON, in the order of its fields.
    pub text: String,
    /// SHA-256 of the digest before it and of `text`.
    pub sha256: Digest,
}

impl Line {
    /// What it says; `None` when it is not in its one form.
    pub fn entry(&self) -> Option<Entry> {
        let entry: Entry = serde_json::from_str(&self.text).ok()?;
        (text(&entry) == self.text).then_some(entry)
    }
}

/// The end of a log: all that the next line must hold on to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The number of the last line; 0 when there is none.
    pub seq: u64,
    /// Its digest.
    pub sha256: Digest,
}

impl Head {
    /// Of an empty log. It names the fleet, so that no other fleet's log can take this one's place.
    pub fn empty(fleet: &str) -> Self {
        Self { seq: 0, sha256: Digest::of(format!("petrel audit v1\0{fleet}").as_bytes()) }
    }

    /// The line that comes next, and the head with it.
    pub fn follow(&self, at: UnixMillis, deed: &Deed) -> (Line, Head) {
        let Deed { who, action, subject, outcome, request } = deed.clone();
        let entry = Entry { seq: self.seq + 1, at, who, action, subject, outcome, request };
        let text = text(&entry);
        let sha256 = self.holds(&text);
        (Line { text, sha256 }, Head { seq: entry.seq, sha256 })
    }

    /// What the log says before its lines up to this one go.
    pub fn trimmed(&self) -> Deed {
        Deed::new("bridge", TRIMMED, &format!("lines up to {} {}", self.seq, self.sha256), "done")
    }

    /// What such a line says.
    fn of_trim(entry: &Entry) -> Option<Self> {
        let ours = entry.who == "bridge" && entry.action == TRIMMED;
        let (seq, sha256) = entry.subject.strip_prefix("lines up to ").filter(|_| ours)?.split_once(' ')?;
        Some(Self { seq: seq.parse().ok()?, sha256: sha256.parse().ok()? })
    }

    fn holds(&self, text: &str) -> Digest {
        Digest::of(&[&self.sha256.0[..], text.as_bytes()].concat())
    }
}

fn text(entry: &Entry) -> String {
    serde_json::to_string(entry).expect("plain data has a JSON form")
}

/// What was done to a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A line is not what was written.
    #[error("line {line} was edited")]
    Edited {
        /// Which.
        line: u64,
    },
    /// Another line stands in the place of one: it was removed, moved or renumbered, or one before it repeated.
    #[error("in the place of line {line} stands line {found}")]
    Displaced {
        /// Whose place.
        line: u64,
        /// What stands there.
        found: u64,
    },
    /// The end of the log is gone.
    #[error("line {line} and all up to line {known} are missing: the end was cut off")]
    CutOff {
        /// The first that is gone.
        line: u64,
        /// The checkpoint's.
        known: u64,
    },
    /// Lines are gone, and none of those that are left says so.
    #[error("lines up to {line} are gone, and none that is left says that they were to go")]
    Unsaid {
        /// The last of them.
        line: u64,
    },
    /// The lines hold each other, but they are not those of a checkpoint.
    #[error(
        "a line from {from} to {known} was edited, and all after it written anew: line {known} is not the checkpoint's"
    )]
    Rewritten {
        /// The first that may be another.
        from: u64,
        /// The checkpoint's.
        known: u64,
    },
}

/// Follows a log from its first line, and says where it was damaged.
///
/// Lines that were older than land keeps them may be gone: such a log begins behind a [`Head`], and only a checkpoint vouches
/// for that one, by being met.
#[derive(Debug, Clone)]
pub struct Verifier {
    head: Head,
    /// Heads that were kept elsewhere and are not yet reached, the nearest first.
    checkpoints: Vec<Head>,
    /// The last one that was met.
    met: u64,
    /// The last of the lines that are gone, until one says so.
    gone: Option<Head>,
}

impl Verifier {
    /// For the log of a fleet, with the heads that were signed and kept elsewhere, in any order.
    pub fn new(fleet: &str, checkpoints: impl IntoIterator<Item = Head>) -> Self {
        let mut checkpoints: Vec<Head> = checkpoints.into_iter().collect();
        checkpoints.sort_by_key(|head| head.seq);
        Self { head: Head::empty(fleet), checkpoints, met: 0, gone: None }
    }

    /// For a log whose lines up to `base` are gone; how many checkpoints are of lines before that one, and say nothing of what
    /// is left.
    ///
    /// # Errors
    /// When a checkpoint of that very line is another.
    pub fn behind(mut self, base: Head) -> Result<(Self, usize), Damage> {
        let older = self.checkpoints.partition_point(|known| known.seq < base.seq);
        self.checkpoints.drain(..older);
        (self.head, self.met, self.gone) = (base, base.seq, Some(base));
        self.meet()?;
        Ok((self, older))
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// When it is not the one that was written there.
    pub fn take(&mut self, line: &Line) -> Result<Entry, Damage> {
        self.meet()?;
        let due = self.head.seq.saturating_add(1);
        let entry = line.entry().ok_or(Damage::Edited { line: due })?;
        if self.head.holds(&line.text) == line.sha256 && entry.seq == due {
            self.head = Head { seq: due, sha256: line.sha256 };
            // What went later says it for what went before.
            let says = |trim: Head| self.gone.is_none_or(|gone| trim.seq > gone.seq || trim == gone);
            if Head::of_trim(&entry).is_some_and(says) {
                self.gone = None;
            }
            self.meet()?;
            return Ok(entry);
        }
        if entry.seq == due {
            Err(Damage::Edited { line: due })
        } else {
            Err(Damage::Displaced { line: due, found: entry.seq })
        }
    }

    /// The end of the log, once every line was taken.
    ///
    /// # Errors
    /// When a checkpoint knows more.
    pub fn end(mut self) -> Result<Head, Damage> {
        self.meet()?;
        match (self.checkpoints.last(), self.gone) {
            (Some(last), _) => Err(Damage::CutOff { line: self.head.seq + 1, known: last.seq }),
            (None, Some(gone)) => Err(Damage::Unsaid { line: gone.seq }),
            (None, None) => Ok(self.head),
        }
    }

    /// Compares the head with the checkpoints of its number.
    fn meet(&mut self) -> Result<(), Damage> {
        while let Some(known) = self.checkpoints.first().filter(|known| known.seq <= self.head.seq) {
            if *known != self.head {
                return Err(Damage::Rewritten { from: (self.met + 1).min(known.seq), known: known.seq });
            }
            self.met = known.seq;
            self.checkpoints.remove(0);
        }
        Ok(())
    }
}

/// How many lines strangers may cause: whoever holds no token must not fill the disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quota {
    minute: u64,
    written: u32,
    left_out: u64,
}

impl Quota {
    /// Lines a minute.
    pub const PER_MINUTE: u32 = 60;

    /// Whether a line may be written now; and with it, how many could not be since the last one.
    pub fn take(&mut self, now: UnixMillis) -> Option<u64> {
        let minute = now / 60_000;
        if minute != self.minute {
            (self.minute, self.written) = (minute, 0);
        }
        if self.written == Self::PER_MINUTE {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEET: &str = "plant-3";
    /// Logs that the property makes.
    const LOGS: u64 = 400;

    fn log(rng: &mut fastrand::Rng, lines: u64) -> (Vec<Line>, Vec<Head>) {
        let (mut head, mut made, mut heads) = (Head::empty(FLEET), vec![], vec![Head::empty(FLEET)]);
        for at in 0..lines {
            let who = ["admin", "edge-1", "director"][rng.usize(..3)];
            let deed = Deed::new(who, "device.approve", &format!("edge-{}", rng.u8(..)), "done");
            let deed = if rng.bool() { deed.asked_by(&format!("{:016x}", rng.u64(..))) } else { deed };
            let (line, next) = head.follow(1_700_000_000_000 + at, &deed);
            head = next;
            made.push(line);
            heads.push(head);
        }
        (made, heads)
    }

    fn check(lines: &[Line], checkpoints: &[Head]) -> Result<Head, Damage> {
        let mut verifier = Verifier::new(FLEET, checkpoints.iter().copied());
        for line in lines {
            verifier.take(line)?;
        }
        verifier.end()
    }

    /// One byte of a line's text or of its digest is another.
    fn edited(rng: &mut fastrand::Rng, line: &Line) -> Line {
        let mut other = line.clone();
        if rng.bool() {
            other.sha256.0[rng.usize(..32)] ^= 1 << rng.u8(..8);
            return other;
        }
        // Not in its number: a line that says another number stands in a wrong place, which is another damage.
        let from = line.text.find("\"at\"").expect("a line says when");
        let at = rng.usize(from..line.text.len());
        let mut bytes = line.text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
        other.text = String::from_utf8(bytes).expect("ASCII");
        other
    }

    #[test]
    fn whatever_is_done_to_a_log_its_line_is_named() {
        let mut rng = fastrand::Rng::with_seed(80);
        let mut found = [0_u32; 5];
        for _ in 0..LOGS {
            let lines = rng.u64(2..40);
            let (honest, heads) = log(&mut rng, lines);
            let last = heads[heads.len() - 1];
            assert_eq!(check(&honest, &heads), Ok(last));
            for place in 0..honest.len() {
                let line = place as u64 + 1;
                let mut tampered = honest.clone();
                tampered[place] = edited(&mut rng, &honest[place]);
                assert_eq!(check(&tampered, &[]), Err(Damage::Edited { line }));
                found[0] += 1;

                let mut tampered = honest.clone();
                tampered.remove(place);
                // Without its last line a log is a shorter one: that is for a checkpoint.
                if line < lines {
                    assert_eq!(check(&tampered, &[]), Err(Damage::Displaced { line, found: line + 1 }));
                    found[1] += 1;
                }

                let other = rng.usize(..honest.len());
                if other != place {
                    let mut tampered = honest.clone();
                    tampered.swap(place, other);
                    let (first, second) = (line.min(other as u64 + 1), line.max(other as u64 + 1));
                    assert_eq!(check(&tampered, &[]), Err(Damage::Displaced { line: first, found: second }));
                    found[2] += 1;
                }

                let to = rng.usize(place + 1..=honest.len());
                let mut tampered = honest.clone();
                tampered.insert(to, honest[place].clone());
                assert_eq!(check(&tampered, &[]), Err(Damage::Displaced { line: to as u64 + 1, found: line }));
                found[3] += 1;

                let cut = Err(Damage::CutOff { line, known: lines });
                assert_eq!(check(&honest[..place], &[last]), cut, "{line} of {lines}");
                found[4] += 1;
            }
        }
        let [edited, removed, moved, repeated, cut] = found;
        println!(
            "audit: {edited} lines edited, {removed} removed, {moved} moved, {repeated} repeated, {cut} cut off: each named, 0 missed"
        );
    }

    #[test]
    fn a_log_that_was_written_anew_is_found_by_a_checkpoint_and_by_nothing_else() {
        let mut rng = fastrand::Rng::with_seed(81);
        let (honest, heads) = log(&mut rng, 9);
        let (mut forged, mut head) = (honest[..4].to_vec(), heads[4]);
        for line in &honest[4..] {
            let said = line.entry().unwrap();
            let (line, next) = head.follow(said.at, &Deed::new("nobody", &said.action, &said.subject, &said.outcome));
            forged.push(line);
            head = next;
        }
        assert_eq!(check(&forged, &[]), Ok(head), "the lines hold each other");
        assert_eq!(check(&forged, &[heads[4]]), Ok(head), "this checkpoint is from before");
        assert_eq!(check(&forged, &[heads[7], heads[3]]), Err(Damage::Rewritten { from: 4, known: 7 }));
        assert_eq!(check(&honest, &[heads[7], heads[3]]), Ok(heads[9]));
    }

    /// What is left of a log whose beginning went says of every damage as much as the whole did.
    #[test]
    fn a_log_whose_beginning_is_gone_is_followed_from_there() {
        let mut rng = fastrand::Rng::with_seed(83);
        for _ in 0..LOGS {
            let lines = rng.u64(2..40);
            let (honest, heads) = log(&mut rng, lines);
            let gone = rng.usize(1..honest.len());
            let base = heads[gone];
            // The line that says so is written before they go, and others follow it.
            let (said, mut end) = heads[honest.len()].follow(1_800_000_000_000, &base.trimmed());
            let (mut honest, mut heads) = (honest, heads);
            honest.push(said);
            heads.push(end);
            for _ in 0..rng.usize(..3) {
                let (line, next) =
                    end.follow(1_800_000_000_001, &Deed::new("admin", "device.approve", "edge-1", "done"));
                (honest, heads, end) = ([honest, vec![line]].concat(), [heads, vec![next]].concat(), next);
            }
            let (lines, last) = (honest.len() as u64, end);
            let check = |lines: &[Line], known: &[Head]| {
                let (mut verifier, older) = Verifier::new(FLEET, known.iter().copied()).behind(base)?;
                lines.iter().try_for_each(|line| verifier.take(line).map(drop))?;
                Ok((verifier.end()?, older))
            };
            let left = &honest[gone..];
            assert_eq!(check(left, &heads), Ok((last, gone)));
            let place = rng.usize(..left.len());
            let line = (gone + place) as u64 + 1;
            let mut tampered = left.to_vec();
            tampered[place] = edited(&mut rng, &left[place]);
            assert_eq!(check(&tampered, &[]), Err(Damage::Edited { line }));
            assert_eq!(check(&left[..place], &[last]), Err(Damage::CutOff { line, known: lines }));
            // Without the line that says so nothing may be gone.
            let unsaid = honest.iter().position(|line| Head::of_trim(&line.entry().unwrap()).is_some()).unwrap();
            assert_eq!(check(&honest[gone..unsaid], &[]), Err(Damage::Unsaid { line: base.seq }));
            if gone > 1 {
                assert_eq!(
                    check(&honest[gone - 1..], &[]),
                    Err(Damage::Displaced { line: base.seq + 1, found: base.seq })
                );
            }
            // Whoever says that it begins elsewhere must say how, and a checkpoint knows.
            let other = Head { sha256: Digest::of(b"another"), ..base };
            let rewritten = Verifier::new(FLEET, [base]).behind(other).map(|(_, older)| older);
            assert_eq!(rewritten, Err(Damage::Rewritten { from: base.seq, known: base.seq }));
        }
    }

    #[test]
    fn another_fleets_log_is_not_this_ones() {
        let (lines, _) = log(&mut fastrand::Rng::with_seed(82), 3);
        let mut verifier = Verifier::new("plant-4", []);
        assert_eq!(verifier.take(&lines[0]), Err(Damage::Edited { line: 1 }));
    }

    #[test]
    fn words_of_strangers_are_cut_and_obeyed_by_no_terminal() {
        let deed = Deed::new(&"w".repeat(500), "a\u{1b}[2J", &"s".repeat(5_000), "E_X\n").asked_by(&"r".repeat(500));
        let (line, _) = Head::empty(FLEET).follow(0, &deed);
        let said = line.entry().unwrap();
        assert_eq!((said.who.len(), said.subject.len()), (MAX_WORD, MAX_SUBJECT));
        assert_eq!(said.request.map(|r| r.len()), Some(MAX_WORD));
        assert!(!line.text.contains("\\u001b") && !said.outcome.contains('\n'));
        assert!(line.text.len() < 2_048);
    }

    #[test]
    fn strangers_cause_so_many_lines_and_then_a_number() {
        let mut quota = Quota::default();
        let minute = 1_700_000_000_000 / 60_000 * 60_000;
        let written = (0..1_000).filter(|n| quota.take(minute + n) == Some(0)).count();
        assert_eq!(written, Quota::PER_MINUTE as usize);
        assert_eq!(quota.take(minute + 60_000), Some(940));
        assert_eq!(quota.take(minute + 60_001), Some(0));
    }

    #[test]
    fn a_line_has_one_form() {
        let (line, _) = Head::empty(FLEET).follow(7, &Deed::new("admin", "token.new", "", "done"));
        assert_eq!(line.text, r#"{"seq":1,"at":7,"who":"admin","action":"token.new","subject":"","outcome":"done"}"#);
        let other = |from: &str, to: &str| Line { text: line.text.replace(from, to), ..line.clone() }.entry();
        assert!(other("", "").is_some());
        for (from, to) in [("{", "{ "), ("\"at\":7", "\"at\":7,\"at\":7"), ("7", "7.0"), ("}", ",\"x\":1}")] {
            assert_eq!(other(from, to), None, "{from} -> {to}");
        }
    }
}

//! A summary as bytes: what a device sends.
//!
//! Decides the form (docs/drift.md) and that a summary has only one: what is read and would be written otherwise is
//! refused, and so is what could not have been counted. Memory is taken for what the bytes hold, never for what
//! they claim. Whose bytes they are is checked by whoever received them.

use crate::baseline::MAX_FEATURES;
use crate::bits::{Reader, Writer, cost, unzigzag, zigzag};
use crate::feature::MAX_CATEGORIES;
use crate::summary::Summary;
use crate::tally::{Extremes, Tally};
use std::fmt;

/// The version of the form.
pub const SUMMARY_VERSION: u8 = 1;
/// The most bytes of a summary.
pub const MAX_SUMMARY_BYTES: usize = 1 << 20;
/// The fewest bits of one feature: one slot, nothing in it.
const LEAST_FEATURE_BITS: usize = 16;
/// Orders of the code that a feature's counts choose from.
const ORDERS: u32 = 32;

/// Why bytes are no summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// More than [`MAX_SUMMARY_BYTES`]; nothing was read.
    TooLarge {
        /// How many there are.
        found: usize,
    },
    /// A version that this build does not know.
    Version {
        /// What it says.
        found: u8,
    },
    /// Bytes are lacking.
    Short,
    /// Something that no window can have counted.
    Impossible {
        /// What it is.
        reason: &'static str,
    },
    /// A summary that would be written otherwise.
    OtherForm,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::TooLarge { found } => {
                write!(f, "a summary of {found} bytes: at most {MAX_SUMMARY_BYTES} are allowed")
            }
            DecodeError::Version { found } => {
                write!(f, "the summary has version {found}, this build knows {SUMMARY_VERSION}: update the older side")
            }
            DecodeError::Short => f.write_str("the summary is cut short"),
            DecodeError::Impossible { reason } => write!(f, "no window can have counted this: {reason}"),
            DecodeError::OtherForm => f.write_str("the summary is not in its one form"),
        }
    }
}

impl std::error::Error for DecodeError {}

fn impossible(reason: &'static str) -> DecodeError {
    DecodeError::Impossible { reason }
}

impl Summary {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.bits(SUMMARY_VERSION.into(), 8);
        out.bits(self.fingerprint, 64);
        out.number(self.rows, 8);
        out.number(self.windows, 0);
        out.number(self.features.len() as u64, 5);
        for tally in &self.features {
            write(&mut out, tally);
        }
        out.finish()
    }

    /// Reads what [`Summary::encode`] wrote. Ask [`Summary::fits`] before it is used with a baseline.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_SUMMARY_BYTES {
            return Err(DecodeError::TooLarge { found: bytes.len() });
        }
        let (version, _) = bytes.split_first().ok_or(DecodeError::Short)?;
        if *version != SUMMARY_VERSION {
            return Err(DecodeError::Version { found: *version });
        }
        let mut input = Reader::new(&bytes[1..]);
        let summary = read(&mut input)?;
        if let Some(reason) = summary.contradiction() {
            return Err(impossible(reason));
        }
        // One form: no other order of the code, no bits behind the end.
        if summary.encode() == bytes { Ok(summary) } else { Err(DecodeError::OtherForm) }
    }
}

fn read(input: &mut Reader<'_>) -> Result<Summary, DecodeError> {
    let short = DecodeError::Short;
    let fingerprint = input.bits(64).ok_or(short)?;
    let (rows, windows) = (input.number(8).ok_or(short)?, input.number(0).ok_or(short)?);
    let count = input.number(5).ok_or(short)? as usize;
    if count > MAX_FEATURES || count > input.left() / LEAST_FEATURE_BITS {
        return Err(if count > MAX_FEATURES { impossible("it has more than 4096 features") } else { short });
    }
    let mut features = Vec::with_capacity(count);
    for _ in 0..count {
        features.push(read_tally(input)?);
    }
    Ok(Summary { fingerprint, rows, windows, features })
}

/// Counts of one feature are close to each other, because the baseline's bins are: the first says how many there are
/// of all, each but the last how far it is from an equal share.
fn write(out: &mut Writer, tally: &Tally) {
    let finite = tally.finite();
    let share = equal_share(finite, tally.counts.len());
    let apart: Vec<u64> =
        tally.counts.iter().map(|count| zigzag(*count as i64 - share)).take(tally.counts.len() - 1).collect();
    out.bits(tally.counts.len() as u64 - 1, 6);
    out.number(finite, 8);
    if finite > 0 {
        let order = best_order(&apart);
        out.bits(order.into(), 5);
        apart.iter().for_each(|number| out.number(*number, order));
        out.number(tally.longest_run, 1);
    }
    seldom(out, [tally.missing, tally.plus_inf, tally.minus_inf]);
    if finite == 0 {
        return;
    }
    let Some(extremes) = tally.extremes else {
        out.bits(0, 1);
        return;
    };
    out.bits(1, 1);
    seldom(out, [tally.below, tally.above, tally.far]);
    out.bits(extremes.min.to_bits().into(), 32);
    out.bits(extremes.max.to_bits().into(), 32);
    seldom(out, [extremes.at_min, extremes.at_max].map(|n| n.saturating_sub(1)));
    length_and_bits(out, zigzag(tally.sum).into());
    length_and_bits(out, tally.squares);
}

fn read_tally(input: &mut Reader<'_>) -> Result<Tally, DecodeError> {
    let short = DecodeError::Short;
    let slots = input.bits(6).ok_or(short)? as usize + 1;
    if slots > MAX_CATEGORIES + 1 {
        return Err(impossible("a feature has more than 33 slots"));
    }
    let mut tally = Tally::empty(slots);
    let finite = input.number(8).ok_or(short)?;
    if finite > crate::summary::MAX_ROWS {
        return Err(impossible("a feature has more values than a summary may have rows"));
    }
    if finite > 0 {
        read_counts(input, &mut tally, finite)?;
        tally.longest_run = input.number(1).ok_or(short)?;
    }
    [tally.missing, tally.plus_inf, tally.minus_inf] = read_seldom(input)?;
    if finite == 0 || input.bits(1).ok_or(short)? == 0 {
        return Ok(tally);
    }
    [tally.below, tally.above, tally.far] = read_seldom(input)?;
    let mut float = || input.bits(32).map(|bits| f32::from_bits(bits as u32)).ok_or(short);
    let (min, max) = (float()?, float()?);
    let [more_min, more_max] = read_seldom(input)?;
    let (at_min, at_max) = (more_min.saturating_add(1), more_max.saturating_add(1));
    tally.extremes = Some(Extremes { min, at_min, max, at_max });
    let sum = u64::try_from(read_length_and_bits(input)?).map_err(|_| impossible("a sum is too great"))?;
    tally.sum = unzigzag(sum);
    tally.squares = read_length_and_bits(input)?;
    Ok(tally)
}

fn read_counts(input: &mut Reader<'_>, tally: &mut Tally, finite: u64) -> Result<(), DecodeError> {
    let wrong = impossible("a bin has more or less than all values");
    let order = input.bits(5).ok_or(DecodeError::Short)? as u32;
    let share = equal_share(finite, tally.counts.len());
    let mut left = finite;
    let last = tally.counts.len() - 1;
    for count in &mut tally.counts[..last] {
        let apart = unzigzag(input.number(order).ok_or(DecodeError::Short)?);
        *count = share.checked_add(apart).and_then(|n| u64::try_from(n).ok()).ok_or(wrong)?;
        left = left.checked_sub(*count).ok_or(wrong)?;
    }
    tally.counts[last] = left;
    Ok(())
}

fn equal_share(finite: u64, slots: usize) -> i64 {
    (finite / slots as u64) as i64
}

/// The order in which the numbers take the fewest bits; of equals the least.
fn best_order(numbers: &[u64]) -> u32 {
    let all = |order: &u32| numbers.iter().map(|number| cost(*number, *order)).sum::<u32>();
    (0..ORDERS).min_by_key(all).unwrap_or(0)
}

/// Numbers that are seldom other than zero: one bit when all are.
fn seldom<const N: usize>(out: &mut Writer, numbers: [u64; N]) {
    let any = numbers.iter().any(|number| *number > 0);
    out.bits(any.into(), 1);
    if any {
        numbers.iter().for_each(|number| out.number(*number, 2));
    }
}

fn read_seldom<const N: usize>(input: &mut Reader<'_>) -> Result<[u64; N], DecodeError> {
    let mut numbers = [0; N];
    if input.bits(1).ok_or(DecodeError::Short)? == 1 {
        for number in &mut numbers {
            *number = input.number(2).ok_or(DecodeError::Short)?;
        }
    }
    Ok(numbers)
}

/// A number of any size: how many bits it has, and they.
fn length_and_bits(out: &mut Writer, number: u128) {
    let length = 128 - number.leading_zeros();
    out.bits(length.into(), 7);
    // The first bit is always one.
    if length > 1 {
        out.wide(number, length - 1);
    }
}

fn read_length_and_bits(input: &mut Reader<'_>) -> Result<u128, DecodeError> {
    let length = input.bits(7).ok_or(DecodeError::Short)? as u32;
    if length == 0 {
        return Ok(0);
    }
    let rest = input.wide(length - 1).ok_or(DecodeError::Short)?;
    Ok((1 << (length - 1)) | rest)
}

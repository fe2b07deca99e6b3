//! Bits one after the other, and whole numbers in few of them.
//!
//! Decides the code of a number: exponential Golomb of an order that the writer chooses (small numbers cost few
//! bits, no number costs more than 2 x 64). Knows no summary.

/// Writes bits, the highest of a byte first.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    /// Bits of the last byte that are taken; 0 when there is room for none.
    taken: u32,
}

impl Writer {
    /// The lowest `count` bits of a number.
    pub(crate) fn bits(&mut self, number: u64, count: u32) {
        for at in (0..count).rev() {
            if self.taken == 0 {
                self.bytes.push(0);
            }
            let bit = ((number >> at) & 1) as u8;
            if let Some(last) = self.bytes.last_mut() {
                *last |= bit << (7 - self.taken);
            }
            self.taken = (self.taken + 1) % 8;
        }
    }

    /// A number in exponential Golomb of this order.
    pub(crate) fn number(&mut self, number: u64, order: u32) {
        let value = u128::from(number) + (1u128 << order);
        let length = 128 - value.leading_zeros();
        self.bits(0, length - 1 - order);
        self.wide(value, length);
    }

    /// The lowest `count` bits of a wide number.
    pub(crate) fn wide(&mut self, number: u128, count: u32) {
        self.bits((number >> 64) as u64, count.saturating_sub(64));
        self.bits(number as u64, count.min(64));
    }

    /// The bytes; the last is filled with zeros.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// How many bits a number takes in an order.
pub(crate) fn cost(number: u64, order: u32) -> u32 {
    let length = 128 - (u128::from(number) + (1u128 << order)).leading_zeros();
    2 * length - 1 - order
}

/// Reads what [`Writer`] wrote; `None` where nothing is left, or what is there is no number.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn bits(&mut self, count: u32) -> Option<u64> {
        let mut number = 0;
        for _ in 0..count {
            number = (number << 1) | self.bit()?;
        }
        Some(number)
    }

    pub(crate) fn number(&mut self, order: u32) -> Option<u64> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 64 {
                return None;
            }
        }
        let rest = self.wide(zeros + order)?;
        let value = (1u128 << (zeros + order)) | rest;
        u64::try_from(value - (1u128 << order)).ok()
    }

    pub(crate) fn wide(&mut self, count: u32) -> Option<u128> {
        let high = self.bits(count.saturating_sub(64))?;
        Some((u128::from(high) << 64) | u128::from(self.bits(count.min(64))?))
    }

    /// Bits that are left.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() * 8 - self.at
    }

    fn bit(&mut self) -> Option<u64> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = (byte >> (7 - self.at % 8)) & 1;
        self.at += 1;
        Some(bit.into())
    }
}

/// Small whichever side of zero it is on: 0, -1, 1, -2, … become 0, 1, 2, 3, …
pub(crate) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

/// What [`zigzag`] made.
pub(crate) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_in_every_order() {
        for order in [0, 1, 7, 31] {
            for number in [0, 1, 2, 127, 128, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
                let mut writer = Writer::default();
                writer.bits(0b101, 3);
                writer.number(number, order);
                writer.bits(1, 1);
                let bytes = writer.finish();
                assert_eq!(bytes.len(), (4 + cost(number, order) as usize).div_ceil(8));
                let mut reader = Reader::new(&bytes);
                assert_eq!((reader.bits(3), reader.number(order), reader.bits(1)), (Some(5), Some(number), Some(1)));
                assert!(reader.left() < 8);
            }
        }
    }

    #[test]
    fn endless_zeros_are_no_number() {
        assert_eq!(Reader::new(&[0; 64]).number(0), None);
        assert_eq!(Reader::new(&[]).bits(1), None);
    }

    #[test]
    fn signs_go_to_the_end() {
        for number in [0, -1, 1, i64::MIN, i64::MAX, -77] {
            assert_eq!(unzigzag(zigzag(number)), number);
        }
        assert_eq!([0, -1, 1, -2].map(zigzag), [0, 1, 2, 3]);
    }
}

//! Which inputs are kept for people, who may ask for them one day.
//!
//! Two shelves with half of the room each. One holds a draw by lot: what has the lowest lots of all that was seen, as many as
//! fit, which is a uniform draw without replacement however long one goes on (a bottom-k sample: Cohen and Kaplan,
//! "Summarizing data using bottom-k sketches", PODC 2007). The other holds what the model was least sure of. Decides what is
//! put there and what goes; what an input is, and what of it may be kept, is not known here.

use protocol::Chosen;
use std::collections::btree_map::Iter;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;

/// An input larger than this part of a shelf is not kept: it would push out too many others.
const LARGEST_PART: usize = 4;

/// What a shelf holds, from the lowest key.
type Kept<'a, T> = Iter<'a, (u64, u64), (usize, T)>;

/// What has the lowest keys, within a room of so many bytes.
#[derive(Debug)]
struct Shelf<T> {
    room: usize,
    used: usize,
    /// By key, then by when it came; with its size.
    kept: BTreeMap<(u64, u64), (usize, T)>,
    /// What has this key or a higher one was pushed out, or would have been.
    bound: Option<u64>,
}

impl<T> Shelf<T> {
    fn new(room: usize) -> Self {
        Self { room, used: 0, kept: BTreeMap::new(), bound: None }
    }

    fn wants(&self, key: u64) -> bool {
        self.room > 0 && self.bound.is_none_or(|bound| key < bound)
    }

    fn put(&mut self, key: u64, number: u64, size: usize, item: T) {
        self.used += size;
        self.kept.insert((key, number), (size, item));
        while self.used > self.room
            && let Some(((key, _), (size, _))) = self.kept.pop_last()
        {
            // Whatever comes later with a higher key would have gone before this one: else the large would make room
            // for the small, and a draw that asks for the size is no fair one.
            self.bound = Some(key);
            self.used -= size;
        }
    }
}

/// The inputs of one release that are kept.
#[derive(Debug)]
pub struct Samples<T> {
    drawn: Shelf<T>,
    doubtful: Shelf<T>,
    seen: u64,
}

/// Where an input would be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    lot: Option<u64>,
    doubt: Option<u64>,
}

impl Wanted {
    /// Whether it would be kept at all.
    pub fn is_wanted(self) -> bool {
        self.lot.is_some() || self.doubt.is_some()
    }
}

impl<T: Clone> Samples<T> {
    /// With so many bytes of room.
    pub fn new(room: usize) -> Self {
        Self { drawn: Shelf::new(room / 2), doubtful: Shelf::new(room / 2), seen: 0 }
    }

    /// Whether an input with this lot, which nobody chose, would be kept; `confidence` from 0 to 1 is how sure the model was,
    /// where it says that.
    pub fn wants(&self, lot: u64, confidence: Option<f32>) -> Wanted {
        // Of a float from 0 to 1 the bits are in the order of the values.
        let doubt = confidence.filter(|c| c.is_finite()).map(|c| u64::from(c.clamp(0.0, 1.0).to_bits()));
        self.still_wants(Wanted { lot: Some(lot), doubt })
    }

    /// Where it would still be kept, after others were.
    pub fn still_wants(&self, wanted: Wanted) -> Wanted {
        Wanted {
            lot: wanted.lot.filter(|lot| self.drawn.wants(*lot)),
            doubt: wanted.doubt.filter(|doubt| self.doubtful.wants(*doubt)),
        }
    }

    /// Keeps an input of so many bytes where it is wanted; what is too large is not kept.
    pub fn put(&mut self, wanted: Wanted, size: usize, item: T) {
        self.seen += 1;
        let most = self.largest();
        let keys = [(&mut self.drawn, wanted.lot), (&mut self.doubtful, wanted.doubt)];
        for (shelf, key) in keys.into_iter().filter(|_| size <= most) {
            if let Some(key) = key {
                shelf.put(key, self.seen, size, item.clone());
            }
        }
    }

    /// The most bytes that an input may have.
    pub fn largest(&self) -> usize {
        self.drawn.room / LARGEST_PART
    }

    /// How many inputs are kept, and in how many bytes; one on both shelves takes room on both.
    pub fn kept(&self) -> (usize, usize) {
        let numbers = self.drawn.kept.keys().chain(self.doubtful.kept.keys()).map(|(_, number)| number);
        (numbers.collect::<BTreeSet<_>>().len(), self.drawn.used + self.doubtful.used)
    }

    /// At most `count` of them in at most `bytes`, each once, in the order in which they came: half by lot, then the greatest
    /// doubt, then more by lot where there is room. Of each shelf those in front, until one does not fit: to look for smaller
    /// ones behind it would be no draw.
    pub fn pick(&self, count: usize, bytes: usize) -> Vec<(Chosen, &T)> {
        let mut basket = Basket { places: count, room: bytes, picked: BTreeMap::new() };
        let mut drawn = self.drawn.kept.iter().peekable();
        basket.fill(Chosen::Drawn, &mut drawn, count.div_ceil(2), bytes.div_ceil(2));
        basket.fill(Chosen::Doubtful, &mut self.doubtful.kept.iter().peekable(), count, bytes);
        basket.fill(Chosen::Drawn, &mut drawn, count, bytes);
        basket.picked.into_values().collect()
    }
}

/// What is given: by when it came.
struct Basket<'a, T> {
    places: usize,
    room: usize,
    picked: BTreeMap<u64, (Chosen, &'a T)>,
}

impl<'a, T> Basket<'a, T> {
    /// Takes at most `most` more from the front of a shelf, in at most `bytes`.
    fn fill(&mut self, chosen: Chosen, shelf: &mut Peekable<Kept<'a, T>>, most: usize, bytes: usize) {
        let (mut places, mut room) = (most.min(self.places), bytes.min(self.room));
        while places > 0
            && let Some(((_, number), (size, item))) = shelf.peek()
        {
            match self.picked.get_mut(number) {
                // It is here for its doubt, and would be for its lot.
                Some((why, _)) if chosen == Chosen::Drawn => *why = chosen,
                Some(_) => {}
                None if *size > room => return,
                None => {
                    self.picked.insert(*number, (chosen, item));
                    (places, self.places) = (places - 1, self.places - 1);
                    (room, self.room) = (room - size, self.room - size);
                }
            }
            shelf.next();
        }
    }
}

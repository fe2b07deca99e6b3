//! What one connection carries: how many chunks may be on their way, and how long one may take.
//!
//! Enough is asked for to keep the link busy and no more, since what is on its way when a link breaks comes again, and
//! what waits behind a window is late for nobody's fault.

use super::Wait;
use crate::step::Millis;
use protocol::CHUNK_BYTES;
use trust::Digest;

/// Chunks on their way before anything is known of the link.
const FIRST_SIZE: usize = 4;
/// Fewer would stop and go.
const LEAST_SIZE: usize = 2;
/// A link is kept busy for so long, at least …
const BUSY: Millis = 500;
/// … and for so many times the least delay that was seen: at twice the delay a window that was too small doubles.
const DELAYS: u64 = 2;
/// Time over which the rate is measured.
const ROUND: Millis = 200;
/// How long something may take to arrive when nothing is known of the link, chance aside.
const FIRST_PATIENCE: Millis = 3_000;
/// Where land sends what a broker does not keep, it is asked for as soon as its other devices had the time to ask.
const SHORT_PATIENCE: Millis = 200;
/// What is on its way may take so many times as long as others did lately.
const MARGIN: u64 = 3;
/// What took longer waited for more than the link.
const LONGEST_DELAY: Millis = 60_000;

/// The pace of one connection.
#[derive(Debug, Clone)]
pub struct Flow {
    /// The most chunks on their way, as configured.
    most: usize,
    /// The most that the broker lets this connection subscribe to.
    granted: usize,
    size: usize,
    /// Bytes a second that may come at most.
    limit: Option<u64>,
    /// Thousandths of bytes that may be asked for now, by that limit, and when that was.
    leave: (u64, Millis),
    /// The shortest time from asking to arrival.
    shortest: Option<Millis>,
    /// The longest lately: it fades.
    longest: Millis,
    /// The round that is measured: its beginning, and the chunks that came.
    round: Option<(Millis, u64)>,
    /// Whether a round was measured.
    measured: bool,
    /// Chunks come only because somebody asked land for them.
    live: bool,
    /// The same on a device each time, and another on each device.
    chance: u64,
}

impl Flow {
    /// At most `most` chunks on their way and `limit` bytes a second; `name` tells this device from others, so that
    /// they do not all ask at the same moment.
    pub fn new(most: usize, limit: Option<u64>, name: &str) -> Self {
        // FNV-1a, 64 bit.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let chance = name.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
        let (size, granted) = (FIRST_SIZE.min(most), most);
        let leave = (limit.unwrap_or_default().max(CHUNK_BYTES) * 1_000, 0);
        Self {
            most,
            granted,
            size,
            limit,
            leave,
            shortest: None,
            longest: 0,
            round: None,
            measured: false,
            live: false,
            chance,
        }
    }

    /// The connection is another one, of which nothing is known but whether its broker retains.
    pub fn reconnected(&mut self, retains: bool) {
        self.size = FIRST_SIZE.min(self.most);
        self.granted = self.most;
        (self.shortest, self.longest, self.round, self.measured) = (None, 0, None, false);
        self.live = !retains;
    }

    /// The most chunks that are ever on their way.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Chunks that may be on their way now, of all bundles together.
    pub fn size(&self) -> usize {
        self.size.min(self.granted)
    }

    /// How many of `wanted` chunks more may be asked for at `now`, by the limit of bytes a second.
    pub fn leave(&mut self, now: Millis, wanted: usize) -> usize {
        let Some(limit) = self.limit else { return wanted };
        let (left, since) = self.leave;
        let added = limit.saturating_mul(now.saturating_sub(since));
        let left = left.saturating_add(added).min(limit.max(CHUNK_BYTES) * 1_000);
        let cost = CHUNK_BYTES * 1_000;
        let allowed = wanted.min(usize::try_from(left / cost).unwrap_or(wanted));
        self.leave = (left - allowed as u64 * cost, now);
        allowed
    }

    /// A chunk came that was waited for; `retained` when the broker had kept it.
    pub fn arrived(&mut self, now: Millis, wait: Wait, retained: bool) {
        // What comes unasked while land publishes it for the first time says nothing of the broker.
        self.live = !retained && (self.live || wait.is_needed());
        let delay = now.saturating_sub(wait.since()).max(1);
        let shortest = self.shortest.map_or(delay, |least| least.min(delay));
        self.shortest = Some(shortest);
        self.longest = delay.max(self.longest - self.longest / 8);
        let (began, before) = self.round.unwrap_or((wait.since(), 0));
        let (took, came) = (now.saturating_sub(began), before + 1);
        if took < ROUND {
            self.round = Some((began, came));
            // Nothing is known yet, and it comes quickly.
            self.size += usize::from(!self.measured && self.size < self.most);
            return;
        }
        (self.round, self.measured) = (Some((now, 0)), true);
        // Counted in chunks, since small files have small ones.
        let carried = came * (shortest * DELAYS).max(BUSY) / took;
        self.size = usize::try_from(carried).unwrap_or(self.most).max(LEAST_SIZE).min(self.most);
    }

    /// Nothing is on its way: the time until the next is asked for says nothing of the link.
    pub fn idle(&mut self) {
        self.round = None;
    }

    /// The broker did not take a subscription, and has `held` others.
    pub fn turned_down(&mut self, held: usize) {
        self.granted = held.max(1);
    }

    /// Whether land must be asked for whatever is wanted: the broker seems to keep nothing.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// How long `chunk` may take before it is asked for again.
    pub(super) fn patience(&self, chunk: Digest) -> Millis {
        let first = if self.live { SHORT_PATIENCE } else { FIRST_PATIENCE };
        let word = chunk.0[..8].iter().fold(self.chance, |word, byte| (word ^ u64::from(*byte)).rotate_left(7));
        // Up to twice as long: whoever asks land first asks for all who wait.
        let chance = word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
        // Where land must be asked, the longest tells of land and not of the link.
        let delay = if self.live { self.shortest.unwrap_or(0) } else { self.longest };
        (first + first * chance / 1_024).max(delay.min(LONGEST_DELAY) * MARGIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link that carries `rate` bytes a second after `delay`; gives the window and the time that `chunks` took.
    fn pull(flow: &mut Flow, rate: u64, delay: Millis, chunks: usize) -> Millis {
        let mut under_way: std::collections::VecDeque<(Millis, Millis)> = std::collections::VecDeque::new();
        let (mut now, mut free, mut asked, mut came) = (0, 0, 0, 0);
        while came < chunks {
            while under_way.len() < flow.size() && asked < chunks {
                free = (free.max(now + delay)) + CHUNK_BYTES * 1_000 / rate;
                under_way.push_back((now, free));
                asked += 1;
            }
            let (since, at) = under_way.pop_front().expect("something is under way");
            now = at;
            came += 1;
            flow.arrived(now, Wait::from(since, flow, Digest::of(b"1")), true);
        }
        now
    }

    #[test]
    fn a_fast_link_gets_the_whole_window_and_a_slow_one_the_least() {
        for (rate, delay, least, most) in [
            (20_000_000, 1, 32, 32),
            (10_000_000, 20, 32, 32),
            // A satellite: a second away, and wide.
            (2_000_000, 1_000, 32, 32),
            (200_000, 50, 2, 6),
            (10_000, 100, 2, 2),
            (1_000, 100, 2, 2),
        ] {
            let mut flow = Flow::new(32, None, "a");
            pull(&mut flow, rate, delay, 600);
            assert!((least..=most).contains(&flow.size()), "{rate} bytes/s, {delay} ms: {}", flow.size());
        }
    }

    #[test]
    fn a_link_is_kept_busy() {
        for (rate, delay) in [(10_000_000, 20), (1_000_000, 100), (100_000, 600), (10_000, 100)] {
            let mut flow = Flow::new(32, None, "a");
            let took = pull(&mut flow, rate, delay, 400);
            let least = 400 * CHUNK_BYTES * 1_000 / rate;
            assert!(took * 10 <= least * 12 + delay * 100, "{rate} bytes/s, {delay} ms: {took} ms of {least}");
        }
    }

    #[test]
    fn patience_grows_with_what_is_under_way_on_a_slow_link() {
        let mut flow = Flow::new(32, None, "a");
        let chunk = Digest::of(b"1");
        assert!((3_000..6_000).contains(&flow.patience(chunk)));
        pull(&mut flow, 10_000, 100, 50);
        // Two chunks take ten seconds, and more were on their way before that was known.
        assert!((29_000..60_000).contains(&flow.patience(chunk)), "{}", flow.patience(chunk));
        flow.reconnected(true);
        assert!((3_000..6_000).contains(&flow.patience(chunk)));
        flow.reconnected(false);
        assert!((200..400).contains(&flow.patience(chunk)));
    }

    #[test]
    fn devices_do_not_lose_patience_at_the_same_moment() {
        let chunk = Digest::of(b"1");
        let moments: std::collections::BTreeSet<Millis> =
            (0..100).map(|n| Flow::new(8, None, &format!("d-{n}")).patience(chunk)).collect();
        assert!(moments.len() > 60 && moments.iter().max() > moments.iter().min().map(|m| m + 2_000).as_ref());
    }

    #[test]
    fn a_limit_of_bytes_a_second_holds() {
        let mut flow = Flow::new(32, Some(CHUNK_BYTES * 3), "a");
        let asked: usize = (0..=10_000).step_by(100).map(|now| flow.leave(now, 32)).sum();
        assert_eq!(asked, 3 + 30, "a second's worth at once");
        let mut slow = Flow::new(32, Some(CHUNK_BYTES / 10), "a");
        let asked: usize = (0..=100_500).step_by(50).map(|now| slow.leave(now, 32)).sum();
        assert_eq!(asked, 1 + 10);
    }

    #[test]
    fn what_the_broker_grants_is_the_window_until_the_next_connection() {
        let mut flow = Flow::new(32, None, "a");
        pull(&mut flow, 20_000_000, 1, 600);
        flow.turned_down(6);
        assert_eq!(flow.size(), 6);
        flow.turned_down(0);
        assert_eq!(flow.size(), 1);
        flow.reconnected(true);
        assert_eq!(flow.size(), FIRST_SIZE);
    }
}

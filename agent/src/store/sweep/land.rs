//! What a device meets: a land that wants one thing after the other, and a broker that has every chunk.
//!
//! Decides what is wanted in each flow, and what a device must have become in its end. It is always
//! there, honest and quick: here only the disk is not.

use crate::testing::{Fixture, assignment, later_root_bytes, revocation_bytes};
use protocol::DocumentKind;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use trust::{Digest, Intent, StreamAssignment, Trust};

/// A bundle with all that a broker would have of it.
pub(super) struct Parcel {
    pub(super) fixture: Fixture,
    pub(super) chunks: BTreeMap<Digest, Vec<u8>>,
    pub(super) offer: Vec<u8>,
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

/// What land knows.
pub(super) struct Land {
    /// Releases 1, 2 and 3 of the stream `digits`.
    pub(super) parcels: Vec<Parcel>,
}

/// What land wants of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// This release.
    Release(u64),
    /// This release, deliberately older.
    Back(u64),
    /// No stream at all.
    Nothing,
    /// The root of this version is to be believed.
    Root(u64),
    /// This release is taken away.
    Revoked(u64),
}

/// A way that a device goes: from a state at rest, through wishes, to a state at rest.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) name: &'static str,
    /// What was wanted before.
    pub(super) before: &'static [Wish],
    /// What is wanted in turn.
    pub(super) wishes: &'static [Wish],
    /// The release that serves in the end, and the one that is kept behind it.
    pub(super) end: (Option<u64>, Option<u64>),
}

/// Every flow that writes.
pub(super) const FLOWS: [Flow; 9] = [
    Flow { name: "a start that finds nothing to do", before: &[], wishes: &[], end: (None, None) },
    Flow { name: "first install", before: &[], wishes: &[Wish::Release(1)], end: (Some(1), None) },
    Flow { name: "upgrade", before: &[Wish::Release(1)], wishes: &[Wish::Release(2)], end: (Some(2), Some(1)) },
    Flow {
        name: "rollback",
        before: &[Wish::Release(1), Wish::Release(2)],
        wishes: &[Wish::Back(1)],
        end: (Some(1), Some(2)),
    },
    Flow {
        name: "clean-up of bundles",
        before: &[Wish::Release(1), Wish::Release(2)],
        wishes: &[Wish::Release(3)],
        end: (Some(3), Some(2)),
    },
    Flow {
        name: "a wish that changes on the way",
        before: &[],
        wishes: &[Wish::Release(1), Wish::Release(2), Wish::Back(1)],
        end: (Some(1), Some(2)),
    },
    Flow {
        name: "three rotations of the root",
        before: &[Wish::Release(1)],
        wishes: &[Wish::Root(2), Wish::Root(3), Wish::Root(4)],
        end: (Some(1), None),
    },
    Flow {
        name: "revocation",
        before: &[Wish::Release(1), Wish::Release(2)],
        wishes: &[Wish::Revoked(2)],
        end: (Some(1), None),
    },
    Flow {
        name: "retired",
        before: &[Wish::Release(1), Wish::Release(2)],
        wishes: &[Wish::Nothing],
        end: (None, None),
    },
];

impl Flow {
    fn wish(&self, n: usize) -> Wish {
        *self.before.iter().chain(self.wishes).nth(n).expect("a wish of this flow")
    }

    /// What land says at the `n`th wish of this flow, counted over those before too.
    pub(super) fn document(&self, land: &Land, n: usize) -> (DocumentKind, Vec<u8>) {
        match self.wish(n) {
            Wish::Root(version) => (DocumentKind::Root, later_root_bytes(version)),
            Wish::Revoked(release) => {
                (DocumentKind::Revocation, revocation_bytes(land.release(release).fixture.digest))
            }
            wish @ (Wish::Release(_) | Wish::Back(_) | Wish::Nothing) => {
                (DocumentKind::Assignment, assignment(n as u64 + 1, land.streams(wish)))
            }
        }
    }

    /// Whether the device took the `n`th wish.
    pub(super) fn is_taken(&self, trust: &Trust, n: usize) -> bool {
        match self.wish(n) {
            Wish::Root(version) => trust.root().version.get() >= version,
            Wish::Revoked(_) => trust.revocation().is_some(),
            Wish::Release(_) | Wish::Back(_) | Wish::Nothing => {
                trust.counters().assignment().is_some_and(|taken| taken.seq.get() > n as u64)
            }
        }
    }
}

impl Land {
    /// The one land of all tests.
    pub(super) fn get() -> &'static Land {
        static LAND: OnceLock<Land> = OnceLock::new();
        LAND.get_or_init(|| Land { parcels: (1..=3).map(parcel).collect() })
    }

    pub(super) fn parcel(&self, bundle: Digest) -> &Parcel {
        self.parcels.iter().find(|parcel| parcel.fixture.digest == bundle).expect("land made every bundle")
    }

    fn streams(&self, wish: Wish) -> Vec<StreamAssignment> {
        let (intent, release) = match wish {
            Wish::Release(release) => (Intent::Install, release),
            Wish::Back(release) => (Intent::Rollback, release),
            Wish::Nothing | Wish::Root(_) | Wish::Revoked(_) => return Vec::new(),
        };
        vec![self.release(release).fixture.order(intent, release)]
    }

    /// The bundle of a release.
    pub(super) fn release(&self, release: u64) -> &Parcel {
        &self.parcels[release as usize - 1]
    }
}

/// A few small files, one of them in a folder; release 2 has a file of two chunks.
fn parcel(release: u64) -> Parcel {
    let longest = if release == 2 { protocol::CHUNK_BYTES as usize + 9 } else { 300 };
    let model: Vec<u8> = (0..longest).map(|n| (n as u64 * 31 + release) as u8).collect();
    let text = format!("labels of release {release}").into_bytes();
    let fixture = Fixture::of_release(release, &[("data/labels.txt", text), ("model.bin", model)]);
    let (chunks, offer, files) = (fixture.chunks(), fixture.offer(), fixture.files());
    Parcel { fixture, chunks, offer, files }
}

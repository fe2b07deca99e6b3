//! The type that only this crate can make.

use crate::Digest;
use std::ops::Deref;

/// A document whose signatures, kind, fleet and form were checked. Only the functions
/// `verify_*` of this crate make one, so a function that takes it needs no check of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    document: T,
    digest: Digest,
}

impl<T> Verified<T> {
    pub(crate) fn new(document: T, signed_bytes: &[u8]) -> Self {
        Self { document, digest: Digest::of(signed_bytes) }
    }

    /// The digest of the very bytes that were signed.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.document
    }
}

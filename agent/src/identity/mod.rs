//! Who the device is: its key, the certificate that land gave it, and how it gets newer ones.
//!
//! Decides how both survive a power cut. There are two slots, each a key and then its certificate. A newer pair is
//! made in the free slot while the old one goes on; the old one goes when a broker has taken the newer one. So at any
//! moment one whole pair is there that land believes.

mod der;
mod enrol;
mod key;
mod land;
mod renew;
mod tls;

pub(crate) use enrol::{Args as EnrolArgs, run as enrol};
#[cfg(test)]
pub(crate) use key::Key;
pub(crate) use key::{FileKey, Signer, run_number, seed};
pub(crate) use land::{get, is_their_fault};
pub(crate) use renew::{Need, ask, need};
pub(crate) use tls::{Floor, certificates};

use crate::fault::Fault;
use crate::store;
#[cfg(not(test))]
use key::Key;
use protocol::{DeviceId, Enrolled, FleetId};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FOLDER: &str = "identity";
const MAX_CERTIFICATE_BYTES: u64 = 64 * 1024;
const SPEC: u64 = 1;

/// One of the two places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    A,
    B,
}

impl Slot {
    const BOTH: [Slot; 2] = [Slot::A, Slot::B];

    fn name(self) -> &'static str {
        match self {
            Slot::A => "a",
            Slot::B => "b",
        }
    }
}

/// What a slot's file says beside the key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    spec: u64,
    /// Grows with every certificate.
    number: u64,
    fleet: FleetId,
    device: DeviceId,
    chain: String,
    from: u64,
    until: u64,
}

/// A whole slot: the device can show who it is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Where it lies.
    pub(crate) slot: Slot,
    /// The fleet that it belongs to.
    pub(crate) fleet: FleetId,
    /// Its name.
    pub(crate) device: DeviceId,
    /// From when the certificate counts, in seconds since 1970.
    pub(crate) from: u64,
    /// Until when.
    pub(crate) until: u64,
    number: u64,
    key: Arc<dyn Key>,
    shown: Arc<rustls::sign::CertifiedKey>,
}

impl Identity {
    /// What signs the device's messages.
    pub(crate) fn signer(&self) -> Signer {
        Signer::new(self.key.clone())
    }

    /// TLS that shows the certificate, and believes `ca`.
    ///
    /// # Errors
    /// When the authority cannot be used.
    pub(crate) fn tls(&self, ca: &[u8], floor: &Floor) -> Result<Arc<rustls::ClientConfig>, Fault> {
        tls::client(ca, floor, Some(self.shown.clone()))
    }
}

/// The two slots of a state folder.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    folder: PathBuf,
}

impl Slots {
    /// Those in the state folder; nothing is read or made yet.
    pub(crate) fn of(state: &Path) -> Self {
        Self { folder: state.join(FOLDER) }
    }

    /// Every whole slot, the newest first. Those that are not whole are told in the log.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn all(&self) -> Result<Vec<Identity>, Fault> {
        let mut whole = Vec::new();
        let mut fault = None;
        for slot in Slot::BOTH {
            match self.read(slot) {
                Ok(found) => whole.extend(found),
                Err(why) => {
                    tracing::error!(slot = slot.name(), "an identity is not usable: {}", crate::fault::told(&why));
                    fault = Some(why);
                }
            }
        }
        whole.sort_by_key(|identity: &Identity| std::cmp::Reverse(identity.number));
        match (whole.is_empty(), fault) {
            (false, _) => Ok(whole),
            (true, Some(why)) => Err(why),
            (true, None) => Err(Fault::new("this device is not enrolled")
                .because(format!("there is no certificate in {}", self.folder.display()))
                .remedy("on land: petrel devices token new DEVICE --out FILE; here: petrel-agent enrol FILE")),
        }
    }

    /// The key for the next certificate, in the slot that has none; made when there is none. The same is given again
    /// after a power cut, since land may know it already.
    ///
    /// # Errors
    /// When both slots are whole, or the key cannot be made.
    pub(crate) fn next_key(&self) -> Result<(Slot, Arc<dyn Key>), Fault> {
        let unusable = |why: io::Error| {
            Fault::new(format!("cannot use {}", self.folder.display()))
                .because(why)
                .remedy("make the state folder writable for the agent, and see that there is room on the disk")
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(unusable)?;
        store::host().sync_dir(self.folder.parent().unwrap_or(Path::new("/"))).map_err(unusable)?;
        let free = Slot::BOTH.into_iter().find(|slot| !self.certificate(*slot).exists());
        let slot = free.ok_or_else(|| {
            Fault::new("there are two certificates already").because("the newer one was not used yet")
        })?;
        Ok((slot, Arc::new(FileKey::open_or_make(&*store::host(), &self.key(slot))?)))
    }

    /// Keeps the certificate of a slot's key: from here on the slot is whole.
    ///
    /// # Errors
    /// When it is for another key, or cannot be written.
    pub(crate) fn keep(
        &self,
        slot: Slot,
        fleet: &FleetId,
        device: &DeviceId,
        enrolled: Enrolled,
    ) -> Result<Identity, Fault> {
        let number = self.all().map_or(0, |whole| whole[0].number) + 1;
        let Enrolled { chain, from, until, .. } = enrolled;
        let held = Held { spec: SPEC, number, fleet: fleet.clone(), device: device.clone(), chain, from, until };
        let key: Arc<dyn Key> = Arc::new(FileKey::open(&*store::host(), &self.key(slot))?);
        let identity = Self::assemble(slot, &held, key).map_err(|why| {
            Fault::new("the bridge gave a certificate that is of no use")
                .because(why)
                .remedy("look at the bridge's log, and at what stands between it and this device")
        })?;
        let bytes = protocol::encode_json(&held);
        replace(&self.certificate(slot), &bytes, 0o644).map_err(|why| {
            Fault::new(format!("cannot write {}", self.certificate(slot).display()))
                .because(why)
                .remedy("see that there is room on the disk, and enrol again: the same token lets the same key in")
        })?;
        Ok(identity)
    }

    /// A broker took this slot's certificate: the other slot goes, its certificate first.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn keep_only(&self, used: Slot) -> io::Result<()> {
        for slot in Slot::BOTH.into_iter().filter(|slot| *slot != used) {
            for path in [self.certificate(slot), self.key(slot)] {
                match fs::remove_file(path) {
                    Ok(()) => store::host().sync_dir(&self.folder)?,
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Forgets a key that land does not want.
    pub(crate) fn discard(&self, slot: Slot) {
        if !self.certificate(slot).exists() {
            // What cannot be removed is used again the next time.
            let _ = fs::remove_file(self.key(slot));
        }
    }

    fn key(&self, slot: Slot) -> PathBuf {
        self.folder.join(format!("{}.key", slot.name()))
    }

    fn certificate(&self, slot: Slot) -> PathBuf {
        self.folder.join(format!("{}.json", slot.name()))
    }

    fn read(&self, slot: Slot) -> Result<Option<Identity>, Fault> {
        let path = self.certificate(slot);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|f| f.take(MAX_CERTIFICATE_BYTES).read_to_end(&mut bytes)) {
            Err(why) if why.kind() == ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(Fault::new(format!("cannot read {}", path.display())).because(why)),
            Ok(_) => {}
        }
        let damaged = |why: String| {
            Fault::new(format!("{} is damaged", path.display()))
                .because(why)
                .remedy("restore it, or enrol the device again: petrel devices retire, devices token new")
        };
        let held: Held = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if held.spec != SPEC {
            return Err(damaged(format!("version {} is not known here", held.spec)));
        }
        let key = Arc::new(FileKey::open(&*store::host(), &self.key(slot))?);
        Self::assemble(slot, &held, key).map(Some).map_err(damaged)
    }

    fn assemble(slot: Slot, held: &Held, key: Arc<dyn Key>) -> Result<Identity, String> {
        let shown = tls::certified(tls::certificates(held.chain.as_bytes())?, key.clone())?;
        let (fleet, device) = (held.fleet.clone(), held.device.clone());
        Ok(Identity { slot, fleet, device, from: held.from, until: held.until, number: held.number, key, shown })
    }
}

/// Puts `content` in the place of a file: whole, or not at all.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
    let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // The room that it took is worth more than what it says.
        let _ = fs::remove_file(&fresh);
    }
    written?;
    store::host().sync_dir(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// For tests of other rooms: a signer whose key lies in a folder.
#[cfg(test)]
pub(crate) fn signer_in(folder: &Path) -> Signer {
    Signer::new(Arc::new(FileKey::open_or_make(&*store::host(), &folder.join("test.key")).unwrap()))
}

#[cfg(test)]
mod tests;

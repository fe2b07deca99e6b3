//! Who may come in to the broker inside, and what each may say and hear.
//!
//! Decides by the certificate that a client showed: its name is the client's identity, and its serial number must be
//! one that land counts. Which topics a name may use is known in `protocol`, for this broker and for others.

use async_trait::async_trait;
use bridge_core::Device;
use protocol::{BRIDGE_NAME, DeviceId, Topics, is_bridge};
use rmqtt::codec::v5::SubscribeAckReason;
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType};
use rmqtt::types::{AuthResult, ConnectInfo, LastWill, PublishAclResult, SubscribeAclResult};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

/// The certificates that count, by the name in them.
#[derive(Debug, Default)]
pub(crate) struct Guests {
    admitted: RwLock<BTreeMap<String, BTreeSet<String>>>,
}

impl Guests {
    /// A device's certificates, and no others of that name, count from now on.
    pub(crate) fn know(&self, device: &Device) {
        let members = [device].into_iter().filter(|d| d.status.is_member());
        let serials = members.flat_map(Device::credentials).map(|c| c.serial.clone()).collect();
        self.change(|admitted| drop(admitted.insert(device.id.to_string(), serials)));
    }

    /// Nobody of that name may come in.
    pub(crate) fn forget(&self, device: &DeviceId) {
        self.change(|admitted| drop(admitted.remove(device.as_str())));
    }

    /// One certificate more counts, or counts no more.
    pub(crate) fn admit(&self, device: &DeviceId, serial: &str, counts: bool) {
        self.change(|admitted| {
            let serials = admitted.entry(device.to_string()).or_default();
            let _known = if counts { serials.insert(serial.to_owned()) } else { serials.remove(serial) };
        });
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, BTreeSet<String>>)) {
        change(&mut self.admitted.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether a certificate that the intermediate signed counts. The bridge's name is in no device's certificate.
    fn admits(&self, name: &str, serial: &str) -> bool {
        let admitted = self.admitted.read().unwrap_or_else(PoisonError::into_inner);
        name == BRIDGE_NAME || admitted.get(name).is_some_and(|serials| serials.contains(serial))
    }
}

/// The library's door to both.
pub(super) struct Gate {
    pub(super) guests: Arc<Guests>,
    pub(super) topics: Topics,
}

impl Gate {
    /// A client is who its certificate says, under no other client id or user name; what it leaves behind it may say.
    fn lets_in(&self, client: &ConnectInfo) -> bool {
        let Some((name, serial)) = client.cert().and_then(|c| Some((c.common_name.as_ref()?, c.serial.as_ref()?)))
        else {
            return false;
        };
        let id: &str = client.client_id();
        // The bridge may have several connections; no device has a name that begins like its own.
        let itself = id == name || (name == BRIDGE_NAME && is_bridge(id));
        let itself = itself && client.username().is_none_or(|user| user.as_ref() as &str == name);
        // A will is published without being asked for again.
        let will = client.last_will().is_none_or(|will| {
            let topic: &str = match &will {
                LastWill::V3(will) => &will.topic,
                LastWill::V5(will) => &will.topic,
            };
            self.topics.may_write(name, topic)
        });
        itself && will && self.guests.admits(name, serial)
    }
}

#[async_trait]
impl Handler for Gate {
    async fn hook(&self, event: &Parameter, so_far: Option<HookResult>) -> ReturnType {
        match event {
            Parameter::ClientAuthenticate(client) => {
                let result = match self.lets_in(client) {
                    true => AuthResult::Allow(false, None),
                    false => AuthResult::NotAuthorized,
                };
                (false, Some(HookResult::AuthResult(result)))
            }
            Parameter::ClientSubscribeCheckAcl(session, wish) => {
                let name: &str = &session.id.client_id;
                let shared = wish.opts.has_shared_group() && !is_bridge(name);
                let result = match self.topics.may_read(name, &wish.topic_filter) && !shared {
                    true => SubscribeAclResult::new_success(wish.opts.qos(), None),
                    false => SubscribeAclResult::new_failure(SubscribeAckReason::NotAuthorized),
                };
                (false, Some(HookResult::SubscribeAclResult(result)))
            }
            Parameter::MessagePublishCheckAcl(session, publish) => {
                match self.topics.may_write(&session.id.client_id, &publish.topic) {
                    true => (true, so_far),
                    false => {
                        let refusal = PublishAclResult::rejected(false, Some("this topic is not yours".into()));
                        (false, Some(HookResult::PublishAclResult(refusal)))
                    }
                }
            }
            _ => (true, so_far),
        }
    }
}

//! `petrel-agent enrol FILE`: how a device comes into its fleet.
//!
//! Decides the order: nothing is asked of land before everything is known to be in order here, and nothing is
//! written that would be of no use without the certificate. Run again, it goes on where it was, or says that all is done.

use super::der;
use super::land::{Failure, send};
use super::tls::{self, Floor};
use super::{Identity, Slots, replace};
use crate::config::{Address, Config, DEFAULT_PATH};
use crate::fault::Fault;
use crate::store::Lock;
use crate::telemetry;
use protocol::{ENROL_PATH, EnrolRequest, Exchanged, JoinFile, MAX_JOIN_BYTES, SPEC};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use trust::{Root, Verified};

/// Where an agent keeps things when its configuration is the system's.
const SYSTEM_STATE: &str = "/var/lib/petrel";

/// Come into a fleet, with the join file that land made for this device
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  petrel-agent enrol press-7.join                                  # writes /etc/petrel/agent.toml
  petrel-agent enrol press-7.join --config press-7/agent.toml

On land: petrel devices token new press-7 --out press-7.join
The device makes its key itself; the file is good once, and holds a secret until then.")]
pub(crate) struct Args {
    /// The join file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The agent's configuration; written when it is not there
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// The board's name, for a configuration that is written
    #[arg(long, value_name = "NAME", default_value = "generic")]
    board: String,
    /// Enrol anew although this device is enrolled, after it was retired on land
    #[arg(long)]
    again: bool,
}

/// Does it; returns what is to be told.
///
/// # Errors
/// What keeps it from enrolling, with a remedy; nothing half-done is left.
pub(crate) fn run(args: &Args) -> anyhow::Result<String> {
    let join = read(&args.file)?;
    let root = trust_of(&join, &args.file)?;
    let bridge = Address::parse(&join.bridge).map_err(|why| {
        Fault::new(format!("{} names no bridge", args.file.display())).because(why).remedy("ask for a new join file")
    })?;
    let new = !args.config.exists();
    let text = configuration(&join, &args.config, &args.board);
    let config = if new { Config::parse(&args.config, &text)? } else { Config::read(&args.config)? };
    matches(&config, &join, args)?;
    let _lock = Lock::take(&config.state)?;
    let slots = Slots::of(&config.state);
    let known = slots.all().ok().and_then(|all| all.into_iter().next());
    let identity = match known {
        Some(known) if !args.again => {
            if known.device != join.device || known.fleet != join.fleet {
                let what =
                    format!("{} is already enrolled as {} of {}", config.state.display(), known.device, known.fleet);
                return Err(Fault::new(what).remedy("use the state folder of this device, or add --again").into());
            }
            known
        }
        known => enrol(&join, &args.file, &config, &root, &bridge, &slots, known)?,
    };
    write_files(&config, &join, &root, new.then_some((args.config.as_path(), text.as_str())))?;
    Ok(told(&identity, &args.config))
}

fn read(path: &Path) -> Result<JoinFile, Fault> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|f| f.take(MAX_JOIN_BYTES as u64 + 1).read_to_end(&mut bytes)).map_err(|why| {
        Fault::new(format!("cannot read the join file {}", path.display()))
            .because(why)
            .remedy("give the file that `petrel devices token new DEVICE --out FILE` wrote")
    })?;
    JoinFile::read(&bytes).map_err(|why| {
        Fault::new(format!("{} is no join file", path.display()))
            .because(why)
            .remedy("give the file that `petrel devices token new DEVICE --out FILE` wrote, whole and unchanged")
    })
}

fn trust_of(join: &JoinFile, path: &Path) -> Result<Verified<Root>, Fault> {
    trust::verify_root(join.fleet.as_str(), join.root.as_bytes()).map_err(|refusal| {
        Fault::new(format!("the root of trust in {} is refused", path.display()))
            .because(refusal)
            .remedy("make a new join file on a bridge whose root.json is in order (petrel root show)")
    })
}

/// A configuration that is there must be this device's.
fn matches(config: &Config, join: &JoinFile, args: &Args) -> Result<(), Fault> {
    if config.device == join.device && config.fleet == join.fleet {
        return Ok(());
    }
    let (file, path) = (args.file.display(), args.config.display());
    let what =
        format!("{file} is for {} of {}, {path} is of {} of {}", join.device, join.fleet, config.device, config.fleet);
    Err(Fault::new(what).remedy("use the join file of this device, or another configuration with --config"))
}

fn enrol(
    join: &JoinFile,
    path: &Path,
    config: &Config,
    root: &Verified<Root>,
    bridge: &Address,
    slots: &Slots,
    known: Option<Identity>,
) -> Result<Identity, Fault> {
    let floor = Floor::new(u64::try_from(root.issued.unix()).unwrap_or_default());
    let tls = tls::client(join.ca.as_bytes(), &floor, None).map_err(|why| {
        Fault::new(format!("the certificate authority in {} is of no use", path.display()))
            .because_of(why)
            .remedy("ask for a new join file")
    })?;
    if let Some(known) = &known {
        // Enrolled anew: there must be a slot for the new key.
        slots.keep_only(known.slot).map_err(|why| Fault::new("cannot use the state folder").because(why))?;
    }
    let (slot, key) = slots.next_key()?;
    let unsigned = |why| Fault::new("the device's key does not sign").because_of(why);
    let csr = der::request(join.device.as_str(), &*key).map_err(unsigned)?;
    let profile = telemetry::profile(config);
    let request = EnrolRequest { spec: SPEC, device: join.device.clone(), token: join.token.clone(), csr, profile };
    let enrolled = send(bridge, ENROL_PATH, tls, &request).map_err(|failure| {
        if let Failure::Refused(_) | Failure::Impostor { .. } = &failure {
            slots.discard(slot);
        }
        failure.fault()
    })?;
    let identity = slots.keep(slot, &join.fleet, &join.device, enrolled)?;
    if known.is_some() {
        slots.keep_only(slot).map_err(|why| Fault::new("cannot use the state folder").because(why))?;
    }
    Ok(identity)
}

/// The authority and the root where the configuration has them; a root that is newer stays.
fn write_files(
    config: &Config,
    join: &JoinFile,
    root: &Verified<Root>,
    new: Option<(&Path, &str)>,
) -> Result<(), Fault> {
    let write = |path: &Path, content: &[u8]| {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder).and_then(|()| replace(path, content, 0o644)).map_err(|why| {
            Fault::new(format!("cannot write {}", path.display()))
                .because(why)
                .remedy("make the folder writable, see that there is room on the disk, and run the same command again")
        })
    };
    let there = fs::read(&config.root).ok().and_then(|bytes| trust::verify_root(join.fleet.as_str(), &bytes).ok());
    if there.is_none_or(|there| there.version < root.version) {
        write(&config.root, join.root.as_bytes())?;
    }
    if fs::read(&config.ca).ok().as_deref() != Some(join.ca.as_bytes()) {
        write(&config.ca, join.ca.as_bytes())?;
    }
    match new {
        Some((path, text)) => write(path, text.as_bytes()),
        None => Ok(()),
    }
}

fn configuration(join: &JoinFile, path: &Path, board: &str) -> String {
    let state = if path == Path::new(DEFAULT_PATH) { SYSTEM_STATE } else { "state" };
    let JoinFile { fleet, device, broker, bridge, .. } = join;
    // Quoted as TOML has it: what stands in a join file must not add keys.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        "# Written by `petrel-agent enrol`. Every key is explained in docs/operations.md.\n\
         fleet = \"{fleet}\"\ndevice = \"{device}\"\nbroker = {}\nbridge = {}\nca = \"ca.pem\"\nroot = \"root.json\"\n\
         state = \"{state}\"\nboard = {}\n",
        quoted(broker),
        quoted(bridge),
        quoted(board)
    )
}

fn told(identity: &Identity, config: &Path) -> String {
    let until = i64::try_from(identity.until).ok().and_then(trust::Time::from_unix);
    let until = until.map_or("-".into(), |time| time.to_string());
    let run = if config == Path::new(DEFAULT_PATH) {
        "petrel-agent run".to_owned()
    } else {
        format!("petrel-agent run --config {}", config.display())
    };
    format!(
        "{} is enrolled in fleet {}, its certificate counts until {until}\nkey {}\nnext: {run}",
        identity.device,
        identity.fleet,
        identity.signer().public().id()
    )
}

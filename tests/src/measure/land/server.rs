//! Land's database on a PostgreSQL server that is stopped for a minute, under the same load.
//!
//! `cargo xtask bench land` starts the server, and says where it is and how it is stopped.

use super::kept::Kept;
use super::rough::MOMENT;
use super::{ADMIN, Crowd, reached};
use crate::programs::wait_for;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const STOPPED: Duration = Duration::from_secs(60);

/// Moves land to the server by its backup, and stops the server while devices speak.
pub(super) fn stopped(crowd: &mut Crowd) -> anyhow::Result<Value> {
    let control = told("PETREL_TEST_POSTGRES_CONTROL")?;
    let tell = |what: &str| {
        let done = Command::new("sh").args(["-c", &format!("{control} {what}")]).status()?;
        ensure!(done.success(), "the server does not {what}");
        Ok(())
    };
    move_there(crowd)?;
    let (first, more) = (crowd.sign(1)?, crowd.sign(1)?);
    let messages = first.len() + more.len();
    let mut kept = Kept::open(&crowd.database)?;
    let (before, each) = (kept.count()?, first.len() as u64);
    crowd.say(first)?;
    reached("what is kept", before + each / 4, MOMENT, || kept.count())?;
    ensure!(kept.count()? < before + each, "all of it was kept before the server could be stopped");
    tell("stop -m immediate")?;
    let began = Instant::now();
    crowd.say(more)?;
    wait_for("the end of the bridge", || Ok(crowd.fleet.bridge().has_ended()?.then_some(())))?;
    // As systemd does. It waits for its server.
    let back = thread::scope(|scope| {
        let back = scope.spawn(|| {
            while let Some(rest) = STOPPED.checked_sub(began.elapsed()) {
                thread::park_timeout(rest);
            }
            tell("start").map(|()| Instant::now())
        });
        crowd.land_again()?;
        back.join().ok().context("a thread ended early")?
    })?;
    crowd.acknowledged()?;
    let lost = crowd.settled()?;
    let seconds = back.elapsed().as_secs_f64();
    Kept::open(&crowd.database)?.is_whole()?;
    let stopped = (back - began).as_secs_f64();
    Ok(json!({ "messages": messages, "lost": lost, "stopped_s": stopped, "seconds": seconds }))
}

/// As people do it: a backup, and its restore with another configuration.
fn move_there(crowd: &mut Crowd) -> anyhow::Result<()> {
    let (server, authority) = (told("PETREL_TEST_POSTGRES")?, told("PETREL_TEST_POSTGRES_CA")?);
    let desk = &crowd.fleet.desk;
    desk.done("petrel backup --config fleet/bridge.toml --out land.petrel")?;
    crowd.fleet.bridge().cut()?;
    let desk = &crowd.fleet.desk;
    let password = told("PGPASSWORD")?;
    desk.write("fleet/database.password", &password)?;
    fs::set_permissions(desk.path("fleet/database.password"), Permissions::from_mode(0o600))?;
    let lines = format!(
        "database = \"{server}?sslmode=verify-full&sslrootcert={authority}\"\ndatabase_password = \"database.password\"\n"
    );
    desk.write("fleet/bridge.toml", lines + &String::from_utf8(desk.read("fleet/bridge.toml")?)?)?;
    fs::rename(desk.path("fleet/data"), desk.path("fleet/before"))?;
    desk.done("petrel restore land.petrel --config fleet/bridge.toml")?;
    fs::copy(desk.path("fleet/before/admin.token"), desk.path(ADMIN))?;
    let signed_in = server.replacen('@', &format!(":{}@", password.replace(' ', "%20")), 1);
    crowd.database = format!("{signed_in}?sslmode=require");
    crowd.land_again()
}

fn told(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} says nothing: `cargo xtask bench land` starts a server"))
}

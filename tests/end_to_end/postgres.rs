//! A bridge whose state is in PostgreSQL: its server goes and comes, a second bridge wants it, and its backup goes into SQLite and back.
//!
//! `cargo xtask oracles postgres` starts a server and tells where it is.

use crate::fleet::{Fleet, bridge_config};
use crate::programs::{Desk, wait_for};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// As a person may choose one.
const PASSWORD: &str = "50%41 / é:@?";

struct Server {
    /// `127.0.0.1:PORT`, the administrator's URL, and the authority behind its certificate.
    address: String,
    admin: String,
    authority: String,
    control: String,
}

impl Server {
    fn there() -> Option<Self> {
        let told = |name: &str| std::env::var(name).ok();
        let admin = told("PETREL_TEST_POSTGRES")?;
        let address = admin.split(['@', '/']).nth(3)?.to_owned();
        let [authority, control] = ["CA", "CONTROL"].map(|what| told(&format!("PETREL_TEST_POSTGRES_{what}")));
        Some(Self { address, admin, authority: authority?, control: control? })
    }

    fn tell(&self, what: &str) {
        let done = Command::new("sh").args(["-c", &format!("{} {what}", self.control)]).status().unwrap();
        assert!(done.success(), "{what}");
    }

    fn ask(&self, statements: &[&str]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.admin).await.unwrap();
            for statement in statements {
                sqlx::raw_sql(AssertSqlSafe(*statement)).execute(&mut connection).await.unwrap();
            }
        });
    }

    /// The URL of a new database of a user who is nothing but its owner.
    fn database(&self, name: &str) -> String {
        self.ask(&[
            &format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'"),
            &format!("CREATE DATABASE {name} OWNER {name}"),
        ]);
        format!("postgres://{name}@{}/{name}?sslmode=verify-full&sslrootcert={}", self.address, self.authority)
    }
}

/// Lets the bridge's next start use this database, or SQLite.
fn choose(desk: &Desk, url: Option<&str>) {
    let written = String::from_utf8(desk.read("fleet/bridge.toml")).unwrap();
    let others = written.lines().filter(|line| !line.starts_with("database")).map(|line| format!("{line}\n"));
    let database = url.map(|url| format!("database = \"{url}\"\ndatabase_password = \"keys/db.password\"\n"));
    desk.write("fleet/bridge.toml", database.unwrap_or_default() + &others.collect::<String>());
    desk.write("fleet/keys/db.password", format!("{PASSWORD}\n"));
    fs::set_permissions(desk.path("fleet/keys/db.password"), fs::Permissions::from_mode(0o600)).unwrap();
}

/// What land knows, but for what goes on by itself.
fn known(fleet: &Fleet) -> Value {
    let (_, lines) = fleet.ask("/audit?limit=1000");
    let lines: Vec<Value> = lines["items"].as_array().unwrap().clone();
    let (_, device) = fleet.ask("/devices/edge-1");
    let rollouts = fleet.desk.json("petrel rollout ls");
    let (_, releases) = fleet.ask("/releases");
    assert!(releases.to_string().contains("1.0.0"), "{releases}");
    json!({ "lines": lines, "key": device["key_id"], "rollouts": rollouts, "releases": releases })
}

fn roll_out(fleet: &Fleet, version: &str) {
    fleet.desk.bundle("digits", version, version);
    fleet.desk.json(&format!("petrel push {version}"));
    let id = fleet.desk.json(&format!("petrel rollout start digits@{version} --trial-window 1"))["id"].clone();
    fleet.rollout(&id, version, |rollout| rollout["state"] == "completed");
}

#[test]
fn what_a_bridge_keeps_in_postgres_is_there_whatever_ends() {
    let Some(server) = Server::there() else { return eprintln!("not run: cargo xtask oracles postgres") };
    let desk = Desk::with_fleet();
    let url = server.database("plant");
    let bridge = "petrel bridge --config fleet/bridge.toml";
    // The desk's own authority has not signed the server's certificate.
    choose(&desk, Some(&url.replace(&server.authority, "tls/ca.pem")));
    desk.refused(bridge, &["cannot use the database", "plant"], "sslrootcert=");
    choose(&desk, Some(&url.replace("plant@", "plant:secret@")));
    let said = desk.refused(bridge, &["`database` holds a password"], "database_password =");
    assert!(!said.contains("secret@"), "{said}");
    choose(&desk, Some(&url));
    let mut fleet = Fleet::on(desk);
    fleet.enlist("edge-1");
    roll_out(&fleet, "1.0.0");
    assert!(!fleet.desk.path("fleet/data/bridge.db").exists());
    fleet.desk.refused(bridge, &["another bridge uses it now"], "stop that one");

    // Its server falls, and the bridge with it; started again it waits.
    let before = known(&fleet);
    server.tell("stop -m immediate");
    assert_eq!(fleet.bridge.ended().code(), Some(1), "{}", fleet.bridge.said());
    let addresses = fleet.desk.read("fleet/data/bridge.json");
    let written: Value = serde_json::from_slice(&addresses).unwrap();
    let port = |key: &str| written[key].as_str().unwrap().rsplit_once('/').unwrap().1.to_owned();
    fleet.desk.write("fleet/bridge.toml", bridge_config(&fleet.desk, &port("api"), &port("broker")));
    fleet.bridge = fleet.desk.start(bridge, "waiting.log");
    wait_for("word of what it waits for", || fleet.bridge.said().contains("the bridge waits for it").then_some(()));
    fleet.bridge.runs();
    server.tell("start");
    wait_for("land", || (fleet.ask("/devices/edge-1").0 == 200).then_some(()));
    assert_eq!(known(&fleet), before, "all of it");
    fleet.desk.done("petrel audit verify");
    roll_out(&fleet, "1.1.0");

    // Into SQLite, and back into another database.
    let other = server.database("other");
    for (step, to) in [None, Some(other.as_str())].into_iter().enumerate() {
        let before = known(&fleet);
        fleet.desk.json(&format!("petrel backup --config fleet/bridge.toml --out {step}.petrel"));
        fleet.cut_bridge_and(|desk| {
            fs::rename(desk.path("fleet/data"), desk.path(&format!("fleet/lost-{step}"))).unwrap();
            choose(desk, to);
            let restore = format!("petrel restore {step}.petrel --config fleet/bridge.toml");
            desk.done(&restore);
            assert_eq!(desk.path("fleet/data/bridge.db").exists(), to.is_none());
            fs::rename(desk.path("fleet/data"), desk.path("fleet/new")).unwrap();
            if to.is_some() {
                desk.refused(&restore, &["holds something already"], "nothing is written over it");
            }
            fs::rename(desk.path("fleet/new"), desk.path("fleet/data")).unwrap();
            fs::copy(desk.path(&format!("fleet/lost-{step}/admin.token")), desk.path("fleet/data/admin.token"))
                .unwrap();
        });
        let after = known(&fleet);
        for what in ["key", "rollouts", "releases"] {
            assert_eq!(after[what], before[what], "{step}: {what}");
        }
        let (now, then) = (after["lines"].as_array().unwrap(), before["lines"].as_array().unwrap());
        assert!(now.len() > then.len() && now[..then.len()] == then[..], "{step}: {now:?}");
        fleet.desk.done("petrel audit verify");
    }
    // One that forgets where its state is does not begin anew.
    fleet.bridge.kill();
    let empty = server.database("empty");
    choose(&fleet.desk, None);
    fs::rename(fleet.desk.path("fleet/lost-1"), fleet.desk.path("fleet/old")).unwrap();
    fs::rename(fleet.desk.path("fleet/data"), fleet.desk.path("fleet/served")).unwrap();
    fs::rename(fleet.desk.path("fleet/old"), fleet.desk.path("fleet/data")).unwrap();
    choose(&fleet.desk, Some(&empty));
    fleet.desk.refused(bridge, &["the PostgreSQL database is empty", "bridge.db"], "petrel restore");
    for log in ["bridge.log", "waiting.log"] {
        let said = String::from_utf8(fleet.desk.read(log)).unwrap();
        assert!(!said.contains(PASSWORD) && !said.contains("50%2541"), "{log}: {said}");
    }
}

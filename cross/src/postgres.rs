//! A PostgreSQL server for one run: made in a folder of its own, on a port that was free, with a password and TLS, and thrown away.

use crate::build;
use anyhow::Context;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whom the server knows, and how.
const USER: &str = "petrel";
const PASSWORD: &str = "of this run";
/// Who runs it where we are root, as which it does not run.
const SERVANT: &str = "postgres";

/// A server that runs until this goes.
pub(crate) struct Server {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    /// We are root.
    lowers: bool,
}

impl Server {
    /// Makes one and starts it; `petrel` makes its certificate.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, or does not start.
    pub(crate) fn start(petrel: &Path) -> anyhow::Result<Self> {
        let programs = programs().context("PostgreSQL is not installed: apt-get install postgresql")?;
        // Not below a home, into which the server's user may not look.
        let folder = std::env::temp_dir().join(format!("petrel-postgres-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let lowers = build::output(Command::new("id").arg("-u"))?.trim() == "0";
        // A free port: taken and given back, so that somebody else could take it; then the server says so.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let server = Self { programs, folder: folder.canonicalize()?, port, lowers };
        server.hand_over(&server.folder, 0o755)?;
        // Whoever makes the fleet's certificates makes the server's: for 127.0.0.1, by an authority that a URL can name.
        let (password, authority) = (server.folder.join("password"), server.folder.join("authority"));
        build::output(Command::new(petrel).args(["root", "init", "--fleet", "servers", "--out"]).arg(&authority))?;
        fs::write(&password, PASSWORD)?;
        server.hand_over(&password, 0o600)?;
        let mut init = server.command("initdb");
        // By the order of a language, as servers of people may be set up.
        init.args(["--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"]);
        init.args(["--auth=scram-sha-256", "--username", USER, "--pgdata"]);
        build::output(init.arg(server.data()).arg("--pwfile").arg(&password))?;
        for (from, to) in [("bridge.pem", "server.crt"), ("bridge.key", "server.key")] {
            fs::copy(authority.join("tls").join(from), server.data().join(to))?;
            server.hand_over(&server.data().join(to), 0o600)?;
        }
        let settings =
            format!("\nlisten_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nssl = on\n");
        let file = server.data().join("postgresql.conf");
        fs::write(&file, fs::read_to_string(&file)? + &settings)?;
        build::run(Command::new("sh").args(["-c", &format!("{} start", server.control())]).stdout(Stdio::null()))?;
        Ok(server)
    }

    /// What tests are told of it; tests that are told nothing ask no server.
    pub(crate) fn introduce(&self, test: &mut Command) {
        test.env("PETREL_TEST_POSTGRES", format!("postgres://{USER}@127.0.0.1:{}/postgres", self.port));
        test.env("PETREL_TEST_POSTGRES_CA", self.folder.join("authority/tls/ca.pem"));
        test.env("PETREL_TEST_POSTGRES_CONTROL", self.control()).env("PGPASSWORD", PASSWORD);
    }

    /// The line for a shell to which `start`, `stop` or `restart` is added.
    fn control(&self) -> String {
        let lower = if self.lowers { format!("cd / && runuser -u {SERVANT} -- ") } else { String::new() };
        let (programs, data, folder) = (self.programs.display(), self.data(), self.folder.display());
        // What it says goes elsewhere, or whoever starts it would wait for its end.
        format!("{lower}'{programs}/pg_ctl' -s -w -D '{}' -l '{folder}/data/server.log'", data.display())
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        if !self.lowers {
            return Command::new(program);
        }
        let mut command = Command::new("runuser");
        command.args(["-u", SERVANT, "--"]).arg(program).current_dir("/");
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn hand_over(&self, path: &Path, mode: u32) -> anyhow::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        if self.lowers {
            let number = |what: &str| -> anyhow::Result<u32> {
                Ok(build::output(Command::new("id").args([what, SERVANT]))?.trim().parse()?)
            };
            chown(path, Some(number("-u")?), Some(number("-g")?))?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been stopped already.
        let _ = Command::new("sh").args(["-c", &format!("{} stop -m immediate", self.control())]).status();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where the programs of the newest version are: Debian keeps them out of the way of others.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let number = |path: &PathBuf| path.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    versions.filter(|path| path.join("initdb").exists()).max_by_key(number)
}

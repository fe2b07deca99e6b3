//! `petrel`: every command of people on land.
//!
//! Decides which commands there are. Each lives in its own room of `cli`; what they do lives in
//! rooms that know no command line.

mod authority;
mod broker;
mod bundle;
mod ceremony;
mod certificates;
mod cli;
mod demo;
mod fault;
mod keyfile;
mod service;

use clap::{Parser, Subcommand};
use cli::{
    Out, audit, backup, breakglass, bridge, broker as broker_config, devices, drift as drift_figures, inspect, keys,
    labels, login, pack, people, publish, push, revoke, rollout, root, samples, sign, status, streams, verify,
    webhooks,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::process::ExitCode;

/// Takes models to small devices far from shore, and tells whether they still work.
#[derive(Debug, Parser)]
#[command(name = "petrel", version, arg_required_else_help = true, after_help = cli::FIRST_STEPS)]
struct Cli {
    /// Print JSON, for machines
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Keys(keys::Args),
    Root(root::Args),
    Revoke(Box<revoke::Args>),
    Breakglass(breakglass::Args),
    Pack(Box<pack::Args>),
    Sign(sign::Args),
    Verify(verify::Args),
    Inspect(inspect::Args),
    Login(login::Args),
    Publish(publish::Args),
    Push(push::Args),
    Bridge(bridge::Args),
    Broker(broker_config::Args),
    Devices(devices::Args),
    Drift(drift_figures::Args),
    Labels(labels::Args),
    Rollout(rollout::Args),
    Samples(samples::Args),
    People(people::Args),
    Webhooks(webhooks::Args),
    Audit(audit::Args),
    Backup(backup::Args),
    Restore(backup::RestoreArgs),
    Streams(streams::Args),
    Status(status::Args),
    Demo(demo::Args),
}

impl Command {
    fn run(self, out: &Out) -> anyhow::Result<()> {
        match self {
            Command::Keys(args) => args.run(out),
            Command::Root(args) => args.run(out),
            Command::Revoke(args) => args.run(out),
            Command::Breakglass(args) => args.run(out),
            Command::Pack(args) => args.run(out),
            Command::Sign(args) => args.run(out),
            Command::Verify(args) => args.run(out),
            Command::Inspect(args) => args.run(out),
            Command::Login(args) => args.run(out),
            Command::Publish(args) => args.run(out),
            Command::Push(args) => args.run(out),
            Command::Bridge(args) => args.run(out),
            Command::Broker(args) => args.run(out),
            Command::Devices(args) => args.run(out),
            Command::Drift(args) => args.run(out),
            Command::Labels(args) => args.run(out),
            Command::Rollout(args) => args.run(out),
            Command::Samples(args) => args.run(out),
            Command::People(args) => args.run(out),
            Command::Webhooks(args) => args.run(out),
            Command::Audit(args) => args.run(out),
            Command::Backup(args) => args.run(out),
            Command::Restore(args) => args.run(out),
            Command::Streams(args) => args.run(out),
            Command::Status(args) => args.run(out),
            Command::Demo(args) => args.run(out),
        }
    }
}

fn main() -> ExitCode {
    // Only a provider that is there already makes this fail, and that would do as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A crash must not leave keys in a file; where the system forbids even this, it forbids the file as well.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let cli = Cli::parse();
    let out = Out::new(cli.json);
    match cli.command.run(&out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out.error(&error);
            ExitCode::FAILURE
        }
    }
}

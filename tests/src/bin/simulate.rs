//! `simulate --seeds N [--json]` lives N worlds one after the other, and says how fast; `simulate --fleet N [--json]` brings
//! one bundle of a hundred chunks to N devices, and says what land published for it.
//!
//! For measuring; `cargo test -p world --test simulation` is the proof.

use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "usage: simulate [--seeds N | --fleet N] [--json]";
/// Chunks of the bundle that a fleet gets.
const CHUNKS: usize = 100;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let json = args.iter().any(|a| a == "--json");
    let number =
        |flag: &str| args.iter().position(|a| a == flag).map(|at| args.get(at + 1).and_then(|n| n.parse().ok()));
    match (number("--fleet"), number("--seeds").unwrap_or(Some(100))) {
        (Some(Some(devices)), _) => fleet(devices, json),
        (None, Some(seeds)) => worlds(seeds as u64, json),
        (Some(None), _) | (None, None) => {
            eprintln!("error: --seeds and --fleet take a whole number\n  {USAGE}");
            ExitCode::from(2)
        }
    }
}

fn fleet(devices: usize, json: bool) -> ExitCode {
    let began = Instant::now();
    let delivered = world::deliver(1, devices, CHUNKS);
    let over = delivered.published as f64 / delivered.bundle as f64;
    let (took, seconds) = (delivered.took_ms / 1_000, began.elapsed().as_secs_f64());
    if json {
        let row = serde_json::json!({
            "devices": devices, "confirmed": delivered.confirmed, "published_over_bundle": over, "took_s": took, "seconds": seconds,
            "broken": delivered.outcome.violation.is_some(),
        });
        println!("{row}");
    } else {
        println!(
            "{} of {devices} devices have it after {took} s of theirs; land published {over:.3} of the bundle; {seconds:.1} s here",
            delivered.confirmed
        );
        if let Some(violation) = &delivered.outcome.violation {
            println!("it breaks: {}", violation.rule);
        }
    }
    if delivered.outcome.violation.is_none() && delivered.confirmed == devices {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn worlds(seeds: u64, json: bool) -> ExitCode {
    let began = Instant::now();
    let (mut steps, mut broken) = (0, Vec::new());
    for seed in 0..seeds {
        let outcome = world::run(seed);
        steps += outcome.steps;
        broken.extend(outcome.violation.map(|v| (seed, v.rule)));
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = steps as f64 / seconds;
    if json {
        let seeds_broken: Vec<u64> = broken.iter().map(|(seed, _)| *seed).collect();
        let row = serde_json::json!({
            "seeds": seeds, "steps": steps, "seconds": seconds, "steps_per_second": rate, "broken": seeds_broken,
        });
        println!("{row}");
    } else {
        println!("{seeds} worlds, {steps} steps in {seconds:.2} s: {rate:.0} steps a second");
        for (seed, rule) in &broken {
            println!("seed {seed} breaks: {rule}");
        }
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! `simulate --seeds N [--json]`: lives N worlds one after the other, and says how fast.
//!
//! For measuring; `cargo test -p world --test simulation` is the proof.

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let json = args.iter().any(|a| a == "--json");
    let given = args.iter().position(|a| a == "--seeds").map(|at| args.get(at + 1).and_then(|n| n.parse().ok()));
    let Some(seeds) = given.unwrap_or(Some(100_u64)) else {
        eprintln!("error: --seeds takes a whole number\n  usage: simulate [--seeds N] [--json]");
        return ExitCode::from(2);
    };
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

//! What people write, in any bytes: expressions and policies.

mod fuzzed;

#[test]
fn no_words_break_an_expression_or_a_policy() {
    const WORDS: [&str; 12] =
        ["(", ")", "'", "not ", " and ", "in", "=", "9999999999999999999", "\u{1b}", "null", "1e999", "\"24h\""];
    for (name, honest, target) in fuzzed::TARGETS {
        let (mut rng, honest) = (fastrand::Rng::with_seed(7), honest());
        target(&honest);
        for _ in 0..5_000 {
            let mut bytes = honest.clone();
            for _ in 0..rng.usize(1..5) {
                let at = rng.usize(..=bytes.len());
                let end = (at + rng.usize(..12)).min(bytes.len());
                match rng.u8(..3) {
                    0 => drop(bytes.splice(at..end, rng.choice(WORDS).expect("words").bytes())),
                    1 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
                    _ => bytes[at..end].iter_mut().for_each(|b| *b = rng.u8(..)),
                }
            }
            target(&bytes);
        }
        println!("{name}: 5000 inputs, no panic, each understood or refused");
    }
}

//! What flat trees say, against trees walked by the definition.

use super::super::layout::{Aggregate, Branch, Child, Drawn, Forest, Number, Weight, outcome};

/// A source of chance that says the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % bound
    }
}

const FEATURES: usize = 4;
/// Thresholds and values come from the same few numbers, so that ties are common; the last
/// is for values alone.
const NUMBERS: [f64; 8] = [-1.0, 0.0, 0.5, 1.0, 2.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];

/// A random ensemble of `trees` trees, with branches of the given outcomes.
fn grow(chance: &mut Chance, trees: usize, targets: usize, aggregate: Aggregate, rules: &[u32]) -> Drawn {
    let mut drawn = Drawn { targets, aggregate, ..Drawn::default() };
    for _ in 0..trees {
        let root = sprout(chance, &mut drawn, rules, 6);
        drawn.roots.push(root);
    }
    drawn
}

fn sprout(chance: &mut Chance, drawn: &mut Drawn, rules: &[u32], height: usize) -> Child {
    if height == 0 || chance.below(4) == 0 {
        let leaf = drawn.leaves;
        drawn.leaves += 1;
        for target in 0..drawn.targets {
            if chance.below(3) > 0 {
                let value = chance.below(100) as f64 / 10.0 - 3.0;
                drawn.weights.push(Weight { leaf, target, value });
            }
        }
        return Child::Leaf(leaf);
    }
    let on_true = sprout(chance, drawn, rules, height - 1);
    let on_false = sprout(chance, drawn, rules, height - 1);
    let thresholds = (0..1 + chance.below(2)).map(|_| NUMBERS[chance.below(7)]).collect();
    let holds = rules[chance.below(rules.len())];
    drawn.branches.push(Branch { feature: chance.below(FEATURES), thresholds, holds, on_true, on_false });
    Child::Branch(drawn.branches.len() - 1)
}

/// The leaf of one row, by the definition.
fn leaf_of(drawn: &Drawn, child: Child, row: &[f64]) -> usize {
    let branch = match child {
        Child::Leaf(leaf) => return leaf,
        Child::Branch(branch) => &drawn.branches[branch],
    };
    let value = row[branch.feature];
    let holds = branch.thresholds.iter().any(|threshold| {
        (branch.holds & outcome::LESS != 0 && value < *threshold)
            || (branch.holds & outcome::EQUAL != 0 && value == *threshold)
            || (branch.holds & outcome::GREATER != 0 && value > *threshold)
            || (branch.holds & outcome::UNORDERED != 0 && value.is_nan())
    });
    leaf_of(drawn, if holds { branch.on_true } else { branch.on_false }, row)
}

/// The aggregate of each target of one row; none where no leaf spoke.
fn naive(drawn: &Drawn, row: &[f64]) -> Vec<Option<f64>> {
    let mut said: Vec<Vec<f64>> = vec![Vec::new(); drawn.targets];
    for root in &drawn.roots {
        let leaf = leaf_of(drawn, *root, row);
        drawn
            .weights
            .iter()
            .filter(|weight| weight.leaf == leaf)
            .for_each(|weight| said[weight.target].push(weight.value));
    }
    let one = |said: Vec<f64>| match drawn.aggregate {
        Aggregate::Sum | Aggregate::Average => (!said.is_empty()).then(|| said.iter().sum()),
        Aggregate::Min => said.into_iter().reduce(f64::min),
        Aggregate::Max => said.into_iter().reduce(f64::max),
    };
    said.into_iter().map(one).collect()
}

fn agrees<T: Number>(drawn: &Drawn, rows: &[f64]) {
    let forest = Forest::<T>::lay(drawn).unwrap();
    let typed: Vec<T> = rows.iter().map(|value| T::from_f64(*value)).collect();
    let sums = forest.walk(&typed, FEATURES);
    let expected = rows.chunks(FEATURES).flat_map(|row| naive(drawn, row));
    let mut checked = 0;
    for ((got, seen), expected) in sums.values.iter().zip(&sums.seen).zip(expected) {
        assert_eq!(*seen, expected.is_some());
        let expected = expected.unwrap_or(0.0) as f32;
        assert!((got.to_f32() - expected).abs() <= 1e-5 * (1.0 + expected.abs()), "{got:?} is not {expected}");
        checked += 1;
    }
    assert_eq!(checked, rows.len() / FEATURES * drawn.targets);
}

#[test]
fn flat_trees_say_what_trees_walked_by_hand_say() {
    use outcome::{EQUAL, GREATER, LESS, UNORDERED};
    let all: Vec<u32> = (0..16).collect();
    let one = [LESS | EQUAL, LESS, GREATER | EQUAL, GREATER, EQUAL, LESS | GREATER | UNORDERED];
    let mut chance = Chance(7);
    for round in 0..300 {
        let rules = if round % 2 == 0 { &all[..] } else { &one[round % 6..][..1] };
        let how = [Aggregate::Sum, Aggregate::Average, Aggregate::Min, Aggregate::Max][round % 4];
        let (trees, targets) = (1 + chance.below(9), 1 + chance.below(3));
        let drawn = grow(&mut chance, trees, targets, how, rules);
        let rows = [1, 3, 64, 65][chance.below(4)];
        let rows: Vec<f64> = (0..rows * FEATURES).map(|_| NUMBERS[chance.below(8)]).collect();
        agrees::<f32>(&drawn, &rows);
        agrees::<f64>(&drawn, &rows);
    }
}

#[test]
fn more_trees_than_walk_together_are_all_added() {
    let drawn = grow(&mut Chance(3), 200, 2, Aggregate::Sum, &[outcome::LESS | outcome::EQUAL]);
    agrees::<f64>(&drawn, &[0.0, 0.5, 1.0, 2.0]);
    agrees::<f64>(&drawn, &[0.25; 4 * FEATURES]);
}

#[test]
fn zeros_of_leaves_that_speak_of_all_targets_take_no_place() {
    let weights =
        |leaf| [0.0, 1.0, 0.0].into_iter().enumerate().map(move |(target, value)| Weight { leaf, target, value });
    let weights = (0..2).flat_map(weights).collect();
    let roots = vec![Child::Leaf(0), Child::Leaf(1)];
    let mut drawn = Drawn { leaves: 2, weights, roots, targets: 3, ..Drawn::default() };
    let forest = Forest::<f32>::lay(&drawn).unwrap();
    assert_eq!((forest.entries.len(), forest.whole), (2, true));
    agrees::<f32>(&drawn, &[0.0; FEATURES]);
    drawn.aggregate = Aggregate::Min;
    assert_eq!(Forest::<f32>::lay(&drawn).unwrap().entries.len(), 6);
    agrees::<f32>(&drawn, &[0.0; FEATURES]);
}

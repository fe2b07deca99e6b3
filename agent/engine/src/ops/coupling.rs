//! One probability for each class, from those of the pairs.
//!
//! Decides nothing of its own: Wu, Lin and Weng, "Probability Estimates for
//! Multi-class Classification by Pairwise Coupling" (JMLR 5, 2004), second approach,
//! with libsvm's stopping rule. Knows no support vectors.

/// The probabilities of `classes` classes from the scores of their pairs, each with
/// the slope and offset of its sigmoid.
pub(super) fn couple(scores: &[f32], sigmoids: &[(f32, f32)], classes: usize) -> Vec<f32> {
    let mut wins = vec![0.0; classes * classes];
    let pairs = (0..classes).flat_map(|i| (i + 1..classes).map(move |j| (i, j)));
    for (((i, j), score), (slope, offset)) in pairs.zip(scores).zip(sigmoids) {
        let win = sigmoid(score * slope + offset).clamp(1e-7, 1.0 - 1e-7);
        wins[i * classes + j] = win;
        wins[j * classes + i] = 1.0 - win;
    }
    probabilities(&wins, classes)
}

/// 1 / (1 + e^x), never by the exponential of a large number.
fn sigmoid(x: f32) -> f32 {
    let far = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 { far } else { 1.0 - far }
}

/// Minimises p'Qp for p that sum to 1, one p after another, until no condition of the
/// optimum is missed by more than 0.005 / classes, in at most 100 rounds.
fn probabilities(wins: &[f32], classes: usize) -> Vec<f32> {
    let win = |i: usize, j: usize| wins[i * classes + j];
    let mut q = vec![0.0; classes * classes];
    for i in 0..classes {
        for j in (0..classes).filter(|j| *j != i) {
            q[i * classes + i] += win(j, i) * win(j, i);
            q[i * classes + j] = -win(j, i) * win(i, j);
        }
    }
    let mut p = vec![1.0 / classes as f32; classes];
    for _ in 0..100 {
        let mut qp: Vec<f32> =
            q.chunks_exact(classes).map(|row| row.iter().zip(&p).map(|(q, p)| q * p).sum()).collect();
        let mut pqp: f32 = p.iter().zip(&qp).map(|(p, qp)| p * qp).sum();
        let miss = qp.iter().map(|qp| (qp - pqp).abs()).fold(0.0, f32::max);
        if miss < 0.005 / classes as f32 {
            break;
        }
        for i in 0..classes {
            let row = &q[i * classes..][..classes];
            let step = (pqp - qp[i]) / row[i];
            p[i] += step;
            pqp = (pqp + step * (step * row[i] + 2.0 * qp[i])) / (1.0 + step) / (1.0 + step);
            for (j, q) in row.iter().enumerate() {
                qp[j] = (qp[j] + step * q) / (1.0 + step);
                p[j] /= 1.0 + step;
            }
        }
    }
    p
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_classes_keep_the_probability_of_their_pair() {
        // 1 / (1 + e^(ln 3)) = 1/4.
        let p = couple(&[3f32.ln()], &[(1.0, 0.0)], 2);
        assert!((p[0] - 0.25).abs() < 5e-3 && (p[1] - 0.75).abs() < 5e-3, "{p:?}");
        assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn pairs_that_agree_give_the_probabilities_they_came_from() {
        // Of classes with 1/2, 1/3 and 1/6: 3:2, 3:1 and 2:1.
        let odds = [3.0 / 2.0, 3.0, 2.0f32].map(f32::ln);
        let p = couple(&odds, &[(-1.0, 0.0); 3], 3);
        for (got, expected) in p.iter().zip([0.5, 1.0 / 3.0, 1.0 / 6.0]) {
            assert!((got - expected).abs() < 5e-3, "{p:?}");
        }
    }

    #[test]
    fn a_hopeless_pair_is_still_a_probability() {
        for score in [f32::MAX, f32::MIN] {
            let p = couple(&[score], &[(f32::MAX, 0.0)], 2);
            assert!(p.iter().all(|p| (0.0..=1.0).contains(p)), "{p:?}");
        }
    }
}

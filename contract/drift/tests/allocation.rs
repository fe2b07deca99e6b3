//! An update takes no memory: alone in its file, because it counts every byte of the program.

mod samples;

use peak_alloc::PeakAlloc;
use petrel_drift::*;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

#[test]
fn an_update_takes_no_memory() {
    let mut chance = fastrand::Rng::with_seed(3);
    let baseline = samples::baseline();
    let rows: Vec<Vec<f32>> = (0..10_000).map(|_| samples::row(&mut chance, 4)).collect();
    let mut monitor = Monitor::new(baseline.clone());
    // Until everything that is ever watched is watched.
    for row in rows.iter().cycle().take(60 * LEARNED_WINDOWS as usize) {
        monitor.update(row).unwrap();
        if monitor.rows() == 60 {
            monitor.close();
        }
    }
    let mut window = Window::new(&baseline);
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    for row in &rows {
        window.update(row).unwrap();
        monitor.update(row).unwrap();
    }
    assert_eq!((MEMORY.peak_usage() - before, MEMORY.current_usage() - before), (0, 0));
    assert_eq!((window.rows(), monitor.rows()), (10_000, 10_000));
}

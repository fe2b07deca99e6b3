//! Six figures of a picture that move when a camera or its light does.
//!
//! Decides their definitions: luminance by ITU-R 601-2 from 0 to 1, sharpness as the variance of the Laplacian, noise by
//! Immerkaer (1996), edges by Sobel. Pixels at the border have no neighbours and are left out of the last three.

use crate::observed::moments;

/// The gradient of a step of a tenth of the whole range.
const EDGE: f64 = 0.4;

/// What is told of a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Statistics {
    /// The mean luminance.
    pub(crate) brightness: f64,
    /// Its standard deviation.
    pub(crate) contrast: f64,
    /// The variance of its Laplacian.
    pub(crate) sharpness: f64,
    /// The standard deviation of what varies from pixel to pixel without being a line.
    pub(crate) noise: f64,
    /// The share of pixels on an edge.
    pub(crate) edges: f64,
    /// The mean saturation, as in HSV.
    pub(crate) saturation: f64,
}

/// Measures pixels row by row, red, green and blue from 0 to 1; grey ones have three equal values.
pub(crate) fn measure(width: usize, height: usize, pixels: &[[f64; 3]]) -> Statistics {
    let grey: Vec<f64> = pixels.iter().map(|[r, g, b]| 0.299 * r + 0.587 * g + 0.114 * b).collect();
    let (brightness, contrast) = moments(grey.iter().copied());
    let near = |x: usize, y: usize| {
        let row = |y: usize| &grey[y * width + x - 1..y * width + x + 2];
        [row(y - 1), row(y), row(y + 1)]
    };
    let inside = || {
        let columns = move || 1..width.saturating_sub(1);
        (1..height.saturating_sub(1)).flat_map(move |y| columns().map(move |x| near(x, y)))
    };
    let laplacian = |[a, b, c]: [&[f64]; 3]| a[1] + b[0] + b[2] + c[1] - 4.0 * b[1];
    let (_, deviation) = moments(inside().map(laplacian));
    let rough =
        |[a, b, c]: [&[f64]; 3]| (a[0] + a[2] + c[0] + c[2] - 2.0 * (a[1] + b[0] + b[2] + c[1]) + 4.0 * b[1]).abs();
    let (roughness, _) = moments(inside().map(rough));
    let gradient = |[a, b, c]: [&[f64]; 3]| {
        let across = a[2] + 2.0 * b[2] + c[2] - a[0] - 2.0 * b[0] - c[0];
        let down = c[0] + 2.0 * c[1] + c[2] - a[0] - 2.0 * a[1] - a[2];
        across.hypot(down)
    };
    let (edges, _) = moments(inside().map(|near| if gradient(near) > EDGE { 1.0 } else { 0.0 }));
    let saturation = |[r, g, b]: &[f64; 3]| {
        let (most, least) = (r.max(*g).max(*b), r.min(*g).min(*b));
        if most > 0.0 { (most - least) / most } else { 0.0 }
    };
    let (saturation, _) = moments(pixels.iter().map(saturation));
    Statistics {
        brightness,
        contrast,
        sharpness: deviation * deviation,
        noise: roughness * (std::f64::consts::PI / 2.0).sqrt() / 6.0,
        edges,
        saturation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(values: &[f64]) -> Vec<[f64; 3]> {
        values.iter().map(|x| [*x; 3]).collect()
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn an_even_picture_has_brightness_and_nothing_else() {
        let even = measure(4, 3, &grey(&[0.5; 12]));
        assert!(near(even.brightness, 0.5) && near(even.contrast, 0.0) && near(even.noise, 0.0), "{even:?}");
        assert_eq!((even.sharpness, even.edges, even.saturation), (0.0, 0.0, 0.0));
    }

    #[test]
    fn figures_are_those_worked_out_by_hand() {
        // A black half and a white one.
        let split: Vec<f64> = (0..16).map(|at| if at % 4 < 2 { 0.0 } else { 1.0 }).collect();
        let split = measure(4, 4, &grey(&split));
        assert!(near(split.brightness, 0.5) && near(split.contrast, 0.5), "{split:?}");
        // The Laplacian is 1 on the dark side and -1 on the other; each inner pixel is on the edge; a line is no noise.
        assert!(near(split.sharpness, 1.0) && near(split.edges, 1.0) && near(split.noise, 0.0), "{split:?}");
        // One white pixel in the dark.
        let mut dot = [0.0; 9];
        dot[4] = 1.0;
        let dot = measure(3, 3, &grey(&dot));
        assert!(near(dot.noise, 4.0 * (std::f64::consts::PI / 2.0).sqrt() / 6.0), "{dot:?}");
        let colours = measure(2, 1, &[[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]]);
        assert!(near(colours.saturation, 0.5), "{colours:?}");
    }

    #[test]
    fn a_picture_without_an_inside_is_measured_as_far_as_it_can_be() {
        for (width, height) in [(1, 1), (2, 5), (9, 2), (0, 0)] {
            let seen = measure(width, height, &grey(&vec![0.25; width * height]));
            assert_eq!((seen.sharpness, seen.noise, seen.edges), (0.0, 0.0, 0.0), "{width} x {height}");
        }
    }
}

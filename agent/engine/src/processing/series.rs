//! Series: from samples in time to windows as a model takes them.
//!
//! Decides what a window is and what is done in it, as NumPy does it. Knows no file.

use rustfft::FftPlanner;
use rustfft::num_complex::Complex;
use serde::Deserialize;

use super::{PRE, in_order, unfit, within, wrong};
use crate::Limits;
use crate::error::{LoadError, RunError};
use crate::input::Input;
use crate::observed::{INPUT_VALUES, moments, numbers};
use crate::port::{Port, show};
use crate::table::{Column, Table};
use crate::tensor::{Data, Tensor};

/// Samples of a window.
const LENGTH: usize = 1 << 20;

/// From samples [T, C] to windows.
#[derive(Debug, Default)]
pub(crate) struct SeriesSteps {
    columns: Option<Vec<String>>,
    length: usize,
    stride: usize,
    /// On the samples of each window, in this order.
    steps: Vec<Step>,
    layout: Layout,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fields {
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum Step {
    Select { columns: Vec<String> },
    Window { length: usize, stride: usize },
    Standardise { mean: Vec<f64>, std: Vec<f64> },
    Zscore {},
    Fft { taper: Option<Taper> },
    Layout { order: Layout },
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Taper {
    Hanning,
}

/// The order of a window's axes: N windows, C channels, T times.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Layout {
    #[default]
    Ntc,
    Nct,
    /// One axis: time by time, the channels of each.
    Flat,
}

impl Step {
    fn rank(&self) -> (u8, &'static str) {
        match self {
            Step::Select { .. } => (0, "select"),
            Step::Window { .. } => (1, "window"),
            Step::Standardise { .. } => (2, "standardise"),
            Step::Zscore {} => (2, "zscore"),
            Step::Fft { .. } => (2, "fft"),
            Step::Layout { .. } => (3, "layout"),
        }
    }
}

/// Windows, each time by time, the channels of each.
#[derive(Debug)]
struct Windows {
    count: usize,
    times: usize,
    channels: usize,
    values: Vec<f64>,
}

impl SeriesSteps {
    pub(super) fn read(Fields { steps }: Fields, port: &Port) -> Result<SeriesSteps, LoadError> {
        let ranks: Vec<_> = steps.iter().map(Step::rank).collect();
        in_order(PRE, &ranks, "select; window; standardise, zscore and fft as they are to be done; layout")?;
        let mut read = SeriesSteps::default();
        for step in steps {
            match step {
                Step::Select { columns } => read.columns = Some(columns),
                Step::Window { length, stride } => (read.length, read.stride) = (length, stride),
                Step::Layout { order } => read.layout = order,
                Step::Standardise { .. } | Step::Zscore {} | Step::Fft { .. } => read.steps.push(step),
            }
        }
        match (1..=LENGTH).contains(&read.length) && (1..=LENGTH).contains(&read.stride) {
            true => read.check(port).map(|()| read),
            false => Err(wrong(PRE, format!("a window is needed, with a length and a stride of 1 to {LENGTH}"))),
        }
    }

    /// Whether the steps make what the model takes.
    fn check(&self, port: &Port) -> Result<(), LoadError> {
        let mut times = self.length;
        let mut channels = self.columns.as_ref().map(Vec::len);
        for step in &self.steps {
            match step {
                Step::Standardise { mean, std } => {
                    let count = *channels.get_or_insert(mean.len());
                    if mean.len() != count || std.len() != count {
                        let reason = format!("standardise: mean and std need a value for each of {count} channels");
                        return Err(wrong(PRE, reason));
                    }
                    if let Some(std) = std.iter().find(|std| **std <= 0.0) {
                        return Err(wrong(PRE, format!("standardise: std is {std}, not above 0")));
                    }
                }
                Step::Fft { .. } => times = self.length / 2 + 1,
                _ => {}
            }
        }
        let made = match self.layout {
            Layout::Ntc => vec![None, Some(times), channels],
            Layout::Nct => vec![None, channels, Some(times)],
            Layout::Flat => vec![None, channels.and_then(|channels| channels.checked_mul(times))],
        };
        let agree = |(want, got): (&Option<usize>, &Option<usize>)| want.is_none() || got.is_none() || want == got;
        let fits = port.shape.len() == made.len() && port.shape.iter().zip(&made).all(agree);
        match fits {
            true => Ok(()),
            false => {
                let (made, takes) = (show(&made), show(&port.shape));
                Err(wrong(PRE, format!("it makes {made}, and the model takes {takes}")))
            }
        }
    }

    /// Rows are times, columns are channels.
    pub(super) fn table(&self, table: &Table, limits: &Limits) -> Result<Vec<(String, Tensor)>, RunError> {
        Ok(vec![(String::new(), self.finish(self.of_table(table, limits)?)?)])
    }

    /// Samples [T] or [T, C], to be cut; or windows [N, T, C] that are cut already.
    pub(super) fn tensors(
        &self,
        named: &[(String, Tensor)],
        limits: &Limits,
    ) -> Result<Vec<(String, Tensor)>, RunError> {
        let made = |(name, given): &(String, Tensor)| {
            given.check().map_err(|source| RunError::Tensor { name: name.clone(), source })?;
            Ok((name.clone(), self.finish(self.of_tensor(given, limits)?)?))
        };
        named.iter().map(made).collect()
    }

    /// Mean and standard deviation of each channel in each window, before any step.
    pub(super) fn observe(&self, input: &Input, limits: &Limits) -> Result<Vec<Column>, RunError> {
        let (windows, names) = match input {
            Input::Table(table) => {
                let names = table.columns.iter().map(|column| column.name.clone()).collect();
                (self.of_table(table, limits)?, self.columns.clone().unwrap_or(names))
            }
            Input::Tensors(named) => {
                let Some((_, tensor)) = named.first() else { return Ok(Vec::new()) };
                (self.of_tensor(tensor, limits)?, self.columns.clone().unwrap_or_default())
            }
            Input::Image(_) => return Ok(Vec::new()),
        };
        if windows.channels > INPUT_VALUES {
            return Ok(Vec::new());
        }
        let columns = (0..windows.channels).flat_map(|channel| {
            let name = |what: &str| names.get(channel).map_or(String::new(), |name| format!("{name}.{what}"));
            let (means, deviations): (Vec<f64>, Vec<f64>) = windows.moments(channel).unzip();
            [numbers(name("mean"), means.into_iter()), numbers(name("deviation"), deviations.into_iter())]
        });
        Ok(columns.collect())
    }

    fn of_table(&self, table: &Table, limits: &Limits) -> Result<Windows, RunError> {
        let columns: Vec<_> = match &self.columns {
            Some(names) => names.iter().map(|name| table.column(name)).collect::<Result<_, _>>()?,
            None => table.columns.iter().collect(),
        };
        let columns = columns.iter().map(|column| column.cells.numbers(&column.name));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let (times, channels) = (table.row_count(), columns.len());
        if columns.iter().any(|column| column.len() != times) {
            return Err(unfit("the columns of the table differ in length"));
        }
        let count = within(&[times, channels], limits)?;
        let samples: Vec<f64> = (0..count).map(|at| columns[at % channels][at / channels]).collect();
        self.windows(&samples, channels, limits)
    }

    fn of_tensor(&self, given: &Tensor, limits: &Limits) -> Result<Windows, RunError> {
        let samples = given.to_f64();
        match given.shape[..] {
            [_] => self.windows(&samples, 1, limits),
            [_, channels] => self.windows(&samples, channels, limits),
            [count, times, channels] if times == self.length => Ok(Windows { count, times, channels, values: samples }),
            _ => {
                let (length, got) = (self.length, &given.shape);
                Err(unfit(format!("give samples as [T, C], or windows as [N, {length}, C], not {got:?}")))
            }
        }
    }

    /// Every whole window; what is left at the end is no window.
    fn windows(&self, samples: &[f64], channels: usize, limits: &Limits) -> Result<Windows, RunError> {
        let times = samples.len().checked_div(channels).unwrap_or(0);
        let Some(spare) = times.checked_sub(self.length) else {
            let length = self.length;
            return Err(unfit(format!("a window has {length} samples, and the series has only {times}")));
        };
        let count = spare / self.stride + 1;
        let mut values = Vec::with_capacity(within(&[count, self.length, channels], limits)?);
        for start in (0..count).map(|window| window * self.stride) {
            values.extend_from_slice(&samples[start * channels..(start + self.length) * channels]);
        }
        Ok(Windows { count, times: self.length, channels, values })
    }

    fn finish(&self, mut windows: Windows) -> Result<Tensor, RunError> {
        let expected = self.columns.as_ref().map(Vec::len);
        if let Some(expected) = expected.filter(|expected| *expected != windows.channels) {
            return Err(unfit(format!("the series has {} channels, not {expected}", windows.channels)));
        }
        if let Some(at) = windows.values.iter().position(|x| !x.is_finite()) {
            let (time, channel) = (at / windows.channels, at % windows.channels);
            let (window, time) = (time / windows.times, time % windows.times);
            return Err(unfit(format!(
                "sample {time} of channel {channel} in window {window} is no number; fill gaps first"
            )));
        }
        for step in &self.steps {
            match step {
                Step::Standardise { mean, std } => windows.standardise(mean, std)?,
                Step::Zscore {} => windows.zscore(),
                Step::Fft { taper } => windows.spectrum(*taper),
                Step::Select { .. } | Step::Window { .. } | Step::Layout { .. } => {}
            }
        }
        let Windows { count, times, channels, .. } = windows;
        let (shape, values) = match self.layout {
            Layout::Ntc => (vec![count, times, channels], windows.values),
            Layout::Flat => (vec![count, times * channels], windows.values),
            Layout::Nct => (vec![count, channels, times], windows.channel_by_channel()),
        };
        Ok(Tensor { shape, data: Data::F64(values) })
    }
}

impl Windows {
    fn standardise(&mut self, mean: &[f64], std: &[f64]) -> Result<(), RunError> {
        if mean.len() != self.channels {
            return Err(unfit(format!("the series has {} channels, not {}", self.channels, mean.len())));
        }
        for time in self.values.chunks_exact_mut(self.channels) {
            for ((x, mean), std) in time.iter_mut().zip(mean).zip(std) {
                *x = (*x - mean) / std;
            }
        }
        Ok(())
    }

    /// Mean and standard deviation of a channel in each window.
    fn moments(&self, channel: usize) -> impl Iterator<Item = (f64, f64)> {
        let windows = self.values.chunks_exact((self.times * self.channels).max(1));
        windows.map(move |window| moments(window.iter().skip(channel).step_by(self.channels).copied()))
    }

    /// Each channel of each window by its own mean and standard deviation; one that
    /// does not vary, rounding apart, becomes 0.
    fn zscore(&mut self) {
        let (times, channels) = (self.times, self.channels);
        for window in self.values.chunks_exact_mut(times * channels) {
            for channel in 0..channels {
                let (mean, std) = moments(window.iter().skip(channel).step_by(channels).copied());
                let varies = std > 1e-12 * mean.abs();
                let scored = |x: f64| if varies { (x - mean) / std } else { 0.0 };
                window.iter_mut().skip(channel).step_by(channels).for_each(|x| *x = scored(*x));
            }
        }
    }

    /// The magnitudes of each channel's discrete Fourier transform, from frequency 0 to
    /// half of the sampling rate: `abs(rfft(x))`.
    fn spectrum(&mut self, taper: Option<Taper>) {
        let (times, channels) = (self.times, self.channels);
        let bins = times / 2 + 1;
        let transform = FftPlanner::new().plan_fft_forward(times);
        let weights: Vec<f64> = (0..times).map(|time| taper.map_or(1.0, |taper| taper.weight(time, times))).collect();
        let mut buffer = vec![Complex::new(0.0, 0.0); times];
        let mut scratch = vec![Complex::new(0.0, 0.0); transform.get_inplace_scratch_len()];
        let mut made = vec![0.0; self.count * bins * channels];
        let windows = self.values.chunks_exact(times * channels);
        for (window, made) in windows.zip(made.chunks_exact_mut(bins * channels)) {
            for channel in 0..channels {
                for ((place, x), weight) in
                    buffer.iter_mut().zip(window[channel..].iter().step_by(channels)).zip(&weights)
                {
                    *place = Complex::new(x * weight, 0.0);
                }
                transform.process_with_scratch(&mut buffer, &mut scratch);
                for (bin, value) in buffer[..bins].iter().enumerate() {
                    made[bin * channels + channel] = value.norm();
                }
            }
        }
        (self.times, self.values) = (bins, made);
    }

    fn channel_by_channel(&self) -> Vec<f64> {
        let (times, channels) = (self.times, self.channels);
        let windows = self.values.chunks_exact((times * channels).max(1));
        windows
            .flat_map(|window| (0..channels).flat_map(move |channel| window[channel..].iter().step_by(channels)))
            .copied()
            .collect()
    }
}

impl Taper {
    /// As `numpy.hanning`: symmetric, 0 at both ends.
    fn weight(self, time: usize, times: usize) -> f64 {
        match (self, times) {
            (Taper::Hanning, 1) => 1.0,
            (Taper::Hanning, _) => 0.5 - 0.5 * (std::f64::consts::TAU * time as f64 / (times - 1) as f64).cos(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Dtype;

    fn read(steps: &str, shape: &[Option<usize>]) -> Result<SeriesSteps, String> {
        let fields: Fields = serde_json::from_str(&format!(r#"{{"steps":{steps}}}"#)).map_err(|e| e.to_string())?;
        let port = Port { name: "x".to_owned(), dtype: Dtype::F32, shape: shape.to_vec() };
        SeriesSteps::read(fields, &port).map_err(|e| e.to_string())
    }

    fn table(text: &str) -> Table {
        Table::parse(text.as_bytes(), &Limits::default()).unwrap()
    }

    fn made(steps: &str, shape: &[Option<usize>], text: &str) -> Tensor {
        let mut made = read(steps, shape).unwrap().table(&table(text), &Limits::default()).unwrap();
        made.remove(0).1
    }

    fn near(got: &Tensor, shape: &[usize], expected: &[f64]) {
        assert_eq!(got.shape, shape);
        for (got, expected) in got.to_f64().iter().zip(expected) {
            assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
        }
    }

    #[test]
    fn windows_overlap_and_the_rest_is_dropped() {
        let text = "a,b\n1,10\n2,20\n3,30\n4,40\n5,50\n6,60\n";
        let steps = r#"[{"op":"window","length":3,"stride":2}]"#;
        let expected = [1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 3.0, 30.0, 4.0, 40.0, 5.0, 50.0];
        near(&made(steps, &[None, Some(3), Some(2)], text), &[2, 3, 2], &expected);
        let steps = r#"[{"op":"select","columns":["b"]},{"op":"window","length":3,"stride":3},
            {"op":"standardise","mean":[10],"std":[5]},{"op":"layout","order":"flat"}]"#;
        near(&made(steps, &[None, Some(3)], text), &[2, 3], &[0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        let steps = r#"[{"op":"window","length":3,"stride":3},{"op":"layout","order":"nct"}]"#;
        let expected = [1.0, 2.0, 3.0, 10.0, 20.0, 30.0, 4.0, 5.0, 6.0, 40.0, 50.0, 60.0];
        near(&made(steps, &[None, Some(2), Some(3)], text), &[2, 2, 3], &expected);
    }

    /// What NumPy 2 says of the same numbers.
    #[test]
    fn spectra_and_scores_are_numpys() {
        let text = "a\n1\n2\n4\n3\n";
        let steps = r#"[{"op":"window","length":4,"stride":1},{"op":"fft"}]"#;
        near(&made(steps, &[None, Some(3), Some(1)], text), &[1, 3, 1], &[10.0, 10f64.sqrt(), 0.0]);
        let steps = r#"[{"op":"window","length":4,"stride":1},{"op":"fft","taper":"hanning"}]"#;
        near(&made(steps, &[None, Some(3), Some(1)], text), &[1, 3, 1], &[4.5, 3.354_101_966_249_684_5, 1.5]);
        let steps = r#"[{"op":"window","length":4,"stride":1},{"op":"zscore"}]"#;
        let std = 1.25f64.sqrt();
        let expected = [-1.5 / std, -0.5 / std, 1.5 / std, 0.5 / std];
        near(&made(steps, &[None, Some(4), Some(1)], text), &[1, 4, 1], &expected);
        near(&made(steps, &[None, Some(4), Some(1)], "a\n7\n7\n7\n7\n"), &[1, 4, 1], &[0.0; 4]);
    }

    #[test]
    fn arrays_are_samples_or_windows() {
        let steps = read(r#"[{"op":"window","length":2,"stride":1}]"#, &[None, Some(2), None]).unwrap();
        let run = |shape: &[usize]| {
            let data = Data::F32(vec![1.0; shape.iter().product()]);
            let tensor = Tensor::new(shape.to_vec(), data).unwrap();
            steps.tensors(&[(String::new(), tensor)], &Limits { input_elements: 12, ..Limits::default() })
        };
        assert_eq!(run(&[3]).unwrap()[0].1.shape, [2, 2, 1]);
        assert_eq!(run(&[3, 3]).unwrap()[0].1.shape, [2, 2, 3]);
        assert_eq!(run(&[5, 2, 1]).unwrap()[0].1.shape, [5, 2, 1]);
        assert!(run(&[1, 3, 1]).unwrap_err().to_string().contains("[N, 2, C]"));
        assert!(run(&[1]).unwrap_err().to_string().contains("only 1"));
        assert_eq!(run(&[4, 3]), Err(RunError::TooLarge { elements: 18, limit: 12 }));
    }

    #[test]
    fn a_gap_is_refused() {
        let steps = read(r#"[{"op":"window","length":2,"stride":1}]"#, &[None, Some(2), Some(2)]).unwrap();
        let error = steps.table(&table("a,b\n1,2\n3,4\n5,\n"), &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("sample 1 of channel 1 in window 1"), "{error}");
    }

    #[test]
    fn steps_that_do_not_suit_are_refused() {
        for (steps, expected) in [
            (r#"[]"#, "a window is needed"),
            (r#"[{"op":"window","length":4,"stride":0}]"#, "stride of 1 to"),
            (
                r#"[{"op":"window","length":4,"stride":1},{"op":"fft"}]"#,
                "it makes [?, 3, ?], and the model takes [?, 4, 1]",
            ),
            (r#"[{"op":"window","length":4,"stride":1},{"op":"layout","order":"flat"}]"#, "it makes [?, ?]"),
            (r#"[{"op":"zscore"},{"op":"window","length":4,"stride":1}]"#, "order"),
            (
                r#"[{"op":"select","columns":["a"]},{"op":"window","length":4,"stride":1},
                {"op":"standardise","mean":[1,2],"std":[1,2]}]"#,
                "each of 1 channels",
            ),
            (r#"[{"op":"window","length":4,"stride":1},{"op":"standardise","mean":[1],"std":[0]}]"#, "not above 0"),
            (r#"[{"op":"wavelet"}]"#, "unknown variant `wavelet`"),
        ] {
            let error = read(steps, &[None, Some(4), Some(1)]).unwrap_err();
            assert!(error.contains(expected), "{steps}: {error}");
        }
    }
}

//! Pictures: from the bytes of an image file to the tensor that a model takes.
//!
//! Decides the order of the declared steps and the shape that they make. How a
//! picture is decoded and resampled is decided by `picture`.

use serde::Deserialize;

use super::{PRE, in_order, within, wrong};
use crate::Limits;
use crate::error::{LoadError, RunError};
use crate::observed::numbers;
use crate::picture::Picture;
use crate::port::{Port, show};
use crate::statistics::{self, Statistics};
use crate::table::Column;
use crate::tensor::{Data, Tensor};

/// Pixels on a side of a picture to be made.
const SIDE: usize = 8192;

const ORDER: &str = "orient; grey, crop and resize as they are to be done; channels, scale, normalise, layout";

/// From an image file to a tensor.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ImageSteps {
    orient: bool,
    /// Grey, crop and resize.
    pixels: Vec<Step>,
    bgr: bool,
    factor: Option<f64>,
    /// Mean and standard deviation of each channel.
    normalise: Option<(Vec<f64>, Vec<f64>)>,
    /// Channels last.
    nhwc: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fields {
    steps: Vec<Step>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum Step {
    Orient {},
    Grey {},
    Resize { width: usize, height: usize },
    Crop { left: Option<usize>, top: Option<usize>, width: usize, height: usize },
    Channels { order: Channels },
    Scale { factor: f64 },
    Normalise { mean: Vec<f64>, std: Vec<f64> },
    Layout { order: Layout },
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Channels {
    Rgb,
    Bgr,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Layout {
    Nchw,
    Nhwc,
}

impl Step {
    fn rank(&self) -> (u8, &'static str) {
        match self {
            Step::Orient {} => (0, "orient"),
            Step::Grey {} => (1, "grey"),
            Step::Resize { .. } => (1, "resize"),
            Step::Crop { .. } => (1, "crop"),
            Step::Channels { .. } => (2, "channels"),
            Step::Scale { .. } => (3, "scale"),
            Step::Normalise { .. } => (4, "normalise"),
            Step::Layout { .. } => (5, "layout"),
        }
    }
}

impl ImageSteps {
    pub(super) fn read(Fields { steps }: Fields, port: &Port) -> Result<ImageSteps, LoadError> {
        let ranks: Vec<_> = steps.iter().map(Step::rank).collect();
        in_order(PRE, &ranks, ORDER)?;
        let mut read = ImageSteps::default();
        for step in steps {
            match step {
                Step::Orient {} => read.orient = true,
                Step::Resize { width, height } | Step::Crop { width, height, .. }
                    if !(1..=SIDE).contains(&width) || !(1..=SIDE).contains(&height) =>
                {
                    return Err(wrong(PRE, format!("resize and crop: a side has 1 to {SIDE} pixels")));
                }
                Step::Crop { left, top, .. } if left.is_some() != top.is_some() => {
                    return Err(wrong(PRE, "crop: give left and top, or neither for the centre"));
                }
                Step::Grey {} | Step::Resize { .. } | Step::Crop { .. } => read.pixels.push(step),
                Step::Channels { order } => read.bgr = order == Channels::Bgr,
                Step::Scale { factor } => read.factor = Some(factor),
                Step::Normalise { mean, std } => read.normalise = Some((mean, std)),
                Step::Layout { order } => read.nhwc = order == Layout::Nhwc,
            }
        }
        read.check(port)?;
        Ok(read)
    }

    fn channels(&self) -> usize {
        if self.pixels.contains(&Step::Grey {}) { 1 } else { 3 }
    }

    /// Whether the steps make what the model takes.
    fn check(&self, port: &Port) -> Result<(), LoadError> {
        let channels = self.channels();
        if self.bgr && channels == 1 {
            return Err(wrong(PRE, "channels: a grey picture has no order of channels"));
        }
        if let Some((mean, std)) = &self.normalise {
            if mean.len() != channels || std.len() != channels {
                return Err(wrong(
                    PRE,
                    format!("normalise: mean and std need a value for each of {channels} channels"),
                ));
            }
            if let Some(std) = std.iter().find(|std| **std <= 0.0) {
                return Err(wrong(PRE, format!("normalise: std is {std}, not above 0")));
            }
        }
        let (width, height) = self.pixels.iter().fold((None, None), |size, step| match step {
            Step::Resize { width, height } | Step::Crop { width, height, .. } => (Some(*width), Some(*height)),
            _ => size,
        });
        let made = match self.nhwc {
            true => [Some(1), height, width, Some(channels)],
            false => [Some(1), Some(channels), height, width],
        };
        let agree = |(want, got): (&Option<usize>, Option<usize>)| want.is_none() || got.is_none() || *want == got;
        let fits = port.shape.len() == made.len() && port.shape.iter().zip(made).all(agree);
        match fits {
            true => Ok(()),
            false => {
                let (made, takes) = (show(&made), show(&port.shape));
                Err(wrong(PRE, format!("it makes {made}, and the model takes {takes}")))
            }
        }
    }

    /// An image file as FP32.
    pub(super) fn picture(&self, bytes: &[u8], limits: &Limits) -> Result<Vec<(String, Tensor)>, RunError> {
        let failed = |reason| RunError::Image { reason };
        let mut picture = Picture::decode(bytes, self.orient, limits).map_err(failed)?;
        // Before all else: a picture of colours stays one, and a grey one becomes one where colours are wanted.
        if self.channels() == 3 {
            picture = picture.colour();
        }
        for step in &self.pixels {
            picture = match step {
                Step::Grey {} => picture.grey(),
                Step::Resize { width, height } => {
                    within(&[*width, *height, picture.channels], limits)?;
                    picture.resize(*width, *height)
                }
                Step::Crop { left, top, width, height } => {
                    let corner = (*left).zip(*top).or_else(|| picture.centre(*width, *height));
                    let cropped = corner.and_then(|(left, top)| picture.crop(left, top, *width, *height));
                    cropped.ok_or_else(|| {
                        let (w, h) = (picture.width, picture.height);
                        failed(format!("the picture of {w} x {h} pixels is too small to crop {width} x {height} from"))
                    })?
                }
                _ => picture,
            };
        }
        Ok(vec![(String::new(), self.tensor(&picture))])
    }

    /// Six figures of each picture as the model is given it, whichever way it came: scaling is undone first.
    pub(super) fn observe(&self, tensor: &Tensor) -> Vec<Column> {
        let channels = self.channels();
        let (height, width) = match (self.nhwc, &tensor.shape[..]) {
            (true, [_, height, width, c]) | (false, [_, c, height, width]) if *c == channels => (*height, *width),
            _ => return Vec::new(),
        };
        let values = tensor.as_f32();
        let area = width * height;
        let picture = |values: &[f32]| {
            let pixel = |at: usize| {
                let value = |colour: usize| {
                    let place = if self.bgr { channels - 1 - colour } else { colour };
                    let value = f64::from(values[if self.nhwc { at * channels + place } else { place * area + at }]);
                    let (mean, std) =
                        self.normalise.as_ref().map_or((0.0, 1.0), |(mean, std)| (mean[place], std[place]));
                    (value * std + mean) / self.factor.unwrap_or(1.0) / 255.0
                };
                [0, 1, 2].map(|colour| value(colour.min(channels - 1)))
            };
            statistics::measure(width, height, &(0..area).map(pixel).collect::<Vec<_>>())
        };
        let rows: Vec<Statistics> = values.chunks_exact((area * channels).max(1)).map(picture).collect();
        let column =
            |name: &str, figure: fn(&Statistics) -> f64| numbers(format!("picture.{name}"), rows.iter().map(figure));
        let mut columns = vec![
            column("brightness", |s| s.brightness),
            column("contrast", |s| s.contrast),
            column("sharpness", |s| s.sharpness),
            column("noise", |s| s.noise),
            column("edges", |s| s.edges),
        ];
        // A grey picture has no colours that could change.
        columns.extend((channels == 3).then(|| column("saturation", |s| s.saturation)));
        columns
    }

    fn tensor(&self, picture: &Picture) -> Tensor {
        let Picture { width, height, channels, pixels } = picture;
        let factor = self.factor.unwrap_or(1.0);
        let value = |channel: usize, pixel: u8| {
            let scaled = f64::from(pixel) * factor;
            match &self.normalise {
                Some((mean, std)) => ((scaled - mean[channel]) / std[channel]) as f32,
                None => scaled as f32,
            }
        };
        let source = |channel: usize| if self.bgr { channels - 1 - channel } else { channel };
        let values = match self.nhwc {
            true => pixels
                .chunks_exact(*channels)
                .flat_map(|pixel| (0..*channels).map(move |channel| (channel, pixel[source(channel)])))
                .map(|(channel, pixel)| value(channel, pixel))
                .collect(),
            false => (0..*channels)
                .flat_map(|channel| {
                    let plane = pixels.iter().skip(source(channel)).step_by(*channels);
                    plane.map(move |pixel| (channel, *pixel))
                })
                .map(|(channel, pixel)| value(channel, pixel))
                .collect(),
        };
        let shape = match self.nhwc {
            true => vec![1, *height, *width, *channels],
            false => vec![1, *channels, *height, *width],
        };
        Tensor { shape, data: Data::F32(values) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Dtype;
    use std::io::Cursor;

    fn read(steps: &str, shape: &[Option<usize>]) -> Result<ImageSteps, String> {
        let fields: Fields = serde_json::from_str(&format!(r#"{{"steps":{steps}}}"#)).map_err(|e| e.to_string())?;
        let port = Port { name: "x".to_owned(), dtype: Dtype::F32, shape: shape.to_vec() };
        ImageSteps::read(fields, &port).map_err(|e| e.to_string())
    }

    fn png(width: u32, height: u32, rgb: Vec<u8>) -> Vec<u8> {
        let mut png = Vec::new();
        let picture = ::image::RgbImage::from_raw(width, height, rgb).unwrap();
        picture.write_to(&mut Cursor::new(&mut png), ::image::ImageFormat::Png).unwrap();
        png
    }

    fn values(steps: &str, shape: &[Option<usize>], png: &[u8]) -> (Vec<usize>, Vec<f32>) {
        let made = read(steps, shape).unwrap().picture(png, &Limits::default()).unwrap();
        let (_, tensor) = &made[0];
        (tensor.shape.clone(), tensor.as_f32().into_owned())
    }

    #[test]
    fn channels_are_scaled_normalised_and_laid_out() {
        let picture = png(2, 1, vec![2, 4, 6, 8, 10, 12]);
        let scale = r#"[{"op":"scale","factor":0.5}]"#;
        assert_eq!(
            values(scale, &[None, Some(3), None, None], &picture),
            (vec![1, 3, 1, 2], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0])
        );
        let all = r#"[{"op":"channels","order":"bgr"},{"op":"scale","factor":0.5},
            {"op":"normalise","mean":[3,2,1],"std":[1,2,4]},{"op":"layout","order":"nhwc"}]"#;
        assert_eq!(
            values(all, &[None, None, None, Some(3)], &picture),
            (vec![1, 1, 2, 3], vec![0.0, 0.0, 0.0, 3.0, 1.5, 0.75])
        );
    }

    #[test]
    fn a_crop_is_the_centre_or_a_box() {
        let picture = png(4, 1, (0..12).collect());
        let any = [None, Some(3), None, None];
        let centre = values(r#"[{"op":"crop","width":1,"height":1}]"#, &any, &picture);
        assert_eq!(centre, (vec![1, 3, 1, 1], vec![6.0, 7.0, 8.0]));
        let boxed = r#"[{"op":"crop","left":3,"top":0,"width":1,"height":1}]"#;
        assert_eq!(values(boxed, &any, &picture).1, [9.0, 10.0, 11.0]);
        for step in
            [r#"[{"op":"crop","width":5,"height":1}]"#, r#"[{"op":"crop","left":4,"top":0,"width":1,"height":1}]"#]
        {
            let error = read(step, &any).unwrap().picture(&picture, &Limits::default()).unwrap_err().to_string();
            assert!(error.contains("too small"), "{error}");
        }
    }

    #[test]
    fn steps_that_do_not_suit_are_refused() {
        let four = [None, Some(3), Some(8), Some(8)];
        for (steps, expected) in [
            (r#"[{"op":"grey"}]"#, "it makes [1, 1, ?, ?], and the model takes [?, 3, 8, 8]"),
            (r#"[{"op":"layout","order":"nhwc"}]"#, "it makes [1, ?, ?, 3]"),
            (r#"[{"op":"resize","width":8,"height":8},{"op":"crop","width":4,"height":4}]"#, "it makes [1, 3, 4, 4]"),
            (r#"[{"op":"grey"},{"op":"grey"}]"#, "each at most once"),
            (r#"[{"op":"scale","factor":2},{"op":"grey"}]"#, "order orient"),
            (r#"[{"op":"grey"},{"op":"orient"}]"#, "order orient"),
            (r#"[{"op":"resize","width":0,"height":1}]"#, "1 to 8192"),
            (r#"[{"op":"crop","left":1,"width":1,"height":1}]"#, "left and top"),
            (r#"[{"op":"normalise","mean":[0],"std":[1]}]"#, "each of 3 channels"),
            (r#"[{"op":"normalise","mean":[0,0,0],"std":[1,0,1]}]"#, "not above 0"),
            (r#"[{"op":"grey"},{"op":"channels","order":"bgr"}]"#, "no order of channels"),
            (r#"[{"op":"blur"}]"#, "unknown variant `blur`"),
            (r#"[{"op":"grey","x":1}]"#, "unknown field `x`"),
        ] {
            let error = read(steps, &four).unwrap_err();
            assert!(error.contains(expected), "{steps}: {error}");
        }
    }
}

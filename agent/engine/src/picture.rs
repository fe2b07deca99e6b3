//! Pictures: from the bytes of an image file to the pixels that a model was
//! trained on.
//!
//! Decides luminance and resampling exactly as Pillow does, to the last bit,
//! because that is what models are trained with. Knows no model.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};
use libjpeg_turbo_rs::{DecodeLimits, Decoder, PixelFormat};

use crate::Limits;
use crate::guard::guard;

/// Scans of a progressive JPEG; real ones have about ten, and each is a pass over the picture.
const SCANS: usize = 500;

/// 8-bit pixels, row by row, channels interleaved.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub(crate) channels: usize,
    pub(crate) pixels: Vec<u8>,
}

impl Picture {
    /// Decodes PNG or JPEG; transparency is dropped. The size is checked first. To `orient`
    /// is to turn the picture as its EXIF orientation says, which is otherwise ignored.
    pub(crate) fn decode(bytes: &[u8], orient: bool, limits: &Limits) -> Result<Picture, String> {
        let (mut picture, orientation) = match image::guess_format(bytes) {
            Ok(ImageFormat::Png) => png(bytes, limits)?,
            Ok(ImageFormat::Jpeg) => jpeg(bytes, limits)?,
            _ => return Err("the image is neither PNG nor JPEG".to_owned()),
        };
        if orient {
            picture.apply_orientation(orientation);
        }
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let (channels, pixels) = match picture {
            // What Pillow makes of 16 bits: grey is clipped, and of all else the upper half is taken.
            DynamicImage::ImageLuma16(grey) => (1, grey.iter().map(|x| (*x).min(255) as u8).collect()),
            DynamicImage::ImageLumaA16(grey) => (1, grey.pixels().map(|p| upper(p.0[0])).collect()),
            DynamicImage::ImageRgb16(rgb) => (3, rgb.iter().map(|x| upper(*x)).collect()),
            DynamicImage::ImageRgba16(rgba) => {
                (3, rgba.pixels().flat_map(|p| [0, 1, 2].map(|at| upper(p.0[at]))).collect())
            }
            grey if matches!(grey.color(), ColorType::L8 | ColorType::La8) => (1, grey.into_luma8().into_raw()),
            other => (3, other.into_rgb8().into_raw()),
        };
        Ok(Picture { width, height, channels, pixels })
    }

    /// Luminance by ITU-R 601-2, in 16-bit fixed point.
    pub(crate) fn grey(self) -> Picture {
        if self.channels == 1 {
            return self;
        }
        let grey = |p: &[u8]| {
            let [red, green, blue] = [p[0], p[1], p[2]].map(u32::from);
            ((red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16) as u8
        };
        let pixels = self.pixels.chunks_exact(3).map(grey).collect();
        Picture { channels: 1, pixels, ..self }
    }

    /// Three channels, equal where the picture is grey.
    pub(crate) fn colour(self) -> Picture {
        if self.channels == 3 {
            return self;
        }
        let pixels = self.pixels.iter().flat_map(|grey| [*grey; 3]).collect();
        Picture { channels: 3, pixels, ..self }
    }

    /// Where a centred box of this size begins, halves rounded to even as torchvision's
    /// `center_crop` does; `None` when it does not fit.
    pub(crate) fn centre(&self, width: usize, height: usize) -> Option<(usize, usize)> {
        let half = |spare: usize| spare / 2 + usize::from(spare % 4 == 3);
        Some((half(self.width.checked_sub(width)?), half(self.height.checked_sub(height)?)))
    }

    /// The box of this size whose first pixel is at `left`, `top`; `None` when it does not fit.
    pub(crate) fn crop(&self, left: usize, top: usize, width: usize, height: usize) -> Option<Picture> {
        let fits = left.checked_add(width)? <= self.width && top.checked_add(height)? <= self.height;
        let rows = self.pixels.chunks_exact(self.width * self.channels).skip(top).take(height);
        let part = |row: &[u8]| row[left * self.channels..(left + width) * self.channels].to_vec();
        fits.then(|| Picture { width, height, channels: self.channels, pixels: rows.flat_map(part).collect() })
    }

    /// Bilinear with antialiasing: first across, then down, rounded after each. Since
    /// Pillow 13 first down where the height loses more than twice what the width does.
    pub(crate) fn resize(self, width: usize, height: usize) -> Picture {
        let lost = |from: usize, to: usize| from as i64 - to as i64;
        let (down, across) = (lost(self.height, height), lost(self.width, width));
        if down > 0 && down > 2 * across {
            return self.transposed().resize_width(height).transposed().resize_width(width);
        }
        self.resize_width(width).transposed().resize_width(height).transposed()
    }

    fn resize_width(self, width: usize) -> Picture {
        if width == self.width {
            return self;
        }
        let taps = taps(self.width, width);
        let mut pixels = Vec::with_capacity(width * self.height * self.channels);
        for row in self.pixels.chunks_exact(self.width * self.channels) {
            for (first, weights) in &taps {
                for channel in 0..self.channels {
                    let values = row[first * self.channels + channel..].iter().step_by(self.channels);
                    let sum: i64 = weights.iter().zip(values).map(|(w, v)| w * i64::from(*v)).sum();
                    pixels.push(((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8);
                }
            }
        }
        Picture { width, pixels, ..self }
    }

    fn transposed(self) -> Picture {
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for x in 0..self.width {
            for y in 0..self.height {
                let at = (y * self.width + x) * self.channels;
                pixels.extend_from_slice(&self.pixels[at..at + self.channels]);
            }
        }
        Picture { width: self.height, height: self.width, pixels, ..self }
    }
}

fn unreadable(error: impl std::fmt::Display) -> String {
    format!("the image cannot be read: {error}")
}

/// Refuses a picture of more pixels than there may be elements.
fn within(width: u64, height: u64, limits: &Limits) -> Result<(), String> {
    let (pixels, most) = (width * height, limits.input_elements);
    let told = || format!("the image has {pixels} pixels; at most {most} are allowed");
    if pixels > most as u64 { Err(told()) } else { Ok(()) }
}

fn png(bytes: &[u8], limits: &Limits) -> Result<(DynamicImage, Orientation), String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Png);
    let mut memory = image::Limits::no_limits();
    memory.max_alloc = Some((limits.input_elements as u64).saturating_mul(16));
    reader.limits(memory);
    let mut decoder = reader.into_decoder().map_err(unreadable)?;
    let (width, height) = decoder.dimensions();
    within(width.into(), height.into(), limits)?;
    let orientation = decoder.orientation().map_err(unreadable)?;
    Ok((DynamicImage::from_decoder(decoder).map_err(unreadable)?, orientation))
}

/// By a decoder that does as libjpeg-turbo does, which is Pillow's: others round and fill in colours
/// otherwise.
fn jpeg(bytes: &[u8], limits: &Limits) -> Result<(DynamicImage, Orientation), String> {
    let memory = (limits.input_elements as u64).saturating_mul(16);
    let allowed = DecodeLimits { max_scans: SCANS, max_memory: Some(memory), ..DecodeLimits::default() };
    let work = || -> Result<_, String> {
        let mut decoder = Decoder::new_with_limits(bytes, allowed).map_err(unreadable)?;
        let header = decoder.header();
        within(header.width.into(), header.height.into(), limits)?;
        decoder.set_output_format(match header.components.len() {
            1 => PixelFormat::Grayscale,
            3 => PixelFormat::Rgb,
            other => return Err(format!("the image has {other} colours; save it with red, green and blue, or grey")),
        });
        let image = decoder.decode_image().map_err(unreadable)?;
        let orientation = decoder.exif_orientation().and_then(Orientation::from_exif);
        Ok((image, orientation.unwrap_or(Orientation::NoTransforms)))
    };
    let (image, orientation) = guard(work).map_err(unreadable)??;
    let (width, height, grey) = (image.width as u32, image.height as u32, image.pixel_format == PixelFormat::Grayscale);
    let picture = if grey {
        GrayImage::from_raw(width, height, image.into_vec()).map(DynamicImage::ImageLuma8)
    } else {
        RgbImage::from_raw(width, height, image.into_vec()).map(DynamicImage::ImageRgb8)
    };
    Ok((picture.ok_or_else(|| unreadable("its size is another than it says"))?, orientation))
}

/// The upper half of 16 bits.
fn upper(value: u16) -> u8 {
    value.to_be_bytes()[0]
}

/// Precision of a weight: what is left of 32 bits after 8 for the value and 2 spare.
const BITS: u32 = 22;

/// For each pixel to make, the first pixel to look at and the weights from there on.
fn taps(from: usize, to: usize) -> Vec<(usize, Vec<i64>)> {
    let scale = from as f64 / to as f64;
    let reach = scale.max(1.0);
    let one = |pixel: usize| {
        let centre = (pixel as f64 + 0.5) * scale;
        let first = (centre - reach + 0.5).max(0.0) as usize;
        let end = ((centre + reach + 0.5) as usize).min(from);
        let triangle = |x: usize| (1.0 - ((x as f64 + 0.5 - centre) / reach).abs()).max(0.0);
        let weights: Vec<f64> = (first..end).map(triangle).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |w: &f64| (w / sum * f64::from(1 << BITS)).round() as i64;
        (first, weights.iter().map(fixed).collect())
    };
    (0..to).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(width: usize, height: usize) -> Picture {
        let at = |i: usize| {
            let (x, y) = (i % width, i / width);
            ((x * 37 + y * 91 + x * y * 5) % 256) as u8
        };
        Picture { width, height, channels: 1, pixels: (0..width * height).map(at).collect() }
    }

    /// What Pillow 13 makes of the same pattern by `resize(size, BILINEAR)`.
    #[test]
    fn resizing_is_pillows_to_the_last_bit() {
        let check = |from: (usize, usize), to: (usize, usize), expected: &[u8]| {
            let got = pattern(from.0, from.1).resize(to.0, to.1);
            assert_eq!((got.width, got.height), to);
            assert_eq!(got.pixels, expected, "{from:?} to {to:?}");
        };
        check((6, 5), (3, 2), &[101, 121, 107, 116, 124, 115]);
        check((7, 1), (3, 1), &[32, 111, 190]);
        check((3, 3), (3, 3), &[0, 37, 74, 91, 133, 175, 182, 229, 20]);
        let shrunk = [127, 131, 131, 129, 130, 129, 129, 129, 137, 134, 120, 129, 129, 127, 119, 125];
        check((32, 32), (4, 4), &shrunk);
        let grown = [
            0, 16, 39, 62, 86, 109, 132, 148, 13, 29, 53, 76, 101, 124, 127, 127, 52, 69, 94, 119, 144, 169, 112, 65,
            91, 109, 136, 162, 188, 214, 97, 3, 130, 149, 170, 129, 122, 150, 95, 51, 169, 190, 205, 96, 57, 85, 94,
            98, 182, 203, 216, 85, 35, 64, 93, 114,
        ];
        check((5, 3), (8, 7), &grown);
    }

    #[test]
    fn colours_become_pillows_grey() {
        let rgb = vec![
            0, 91, 255, 37, 133, 218, 74, 175, 181, 111, 217, 144, 91, 0, 164, 133, 37, 122, 175, 74, 80, 217, 111, 38,
        ];
        let picture = Picture { width: 4, height: 2, channels: 3, pixels: rgb };
        let small = picture.clone().resize(2, 1);
        assert_eq!(small.pixels, [74, 74, 182, 136, 136, 119]);
        let grey = picture.grey();
        assert_eq!(grey.pixels, [82, 114, 145, 177, 46, 75, 105, 134]);
        assert_eq!(grey.clone().colour().grey(), grey);
    }

    /// What Pillow 13 makes of the same files by `convert("L")` and `convert("RGB")`.
    #[test]
    fn sixteen_bits_become_pillows_eight() {
        let decoded = |picture: DynamicImage| {
            let mut png = Vec::new();
            picture.write_to(&mut Cursor::new(&mut png), ImageFormat::Png).unwrap();
            Picture::decode(&png, false, &Limits::default()).unwrap()
        };
        let grey = image::ImageBuffer::from_raw(4, 1, vec![0u16, 200, 300, 65_535]).unwrap();
        assert_eq!(decoded(DynamicImage::ImageLuma16(grey)).pixels, [0, 200, 255, 255]);
        let grey = image::ImageBuffer::from_raw(1, 1, vec![0x01ffu16, 65_535]).unwrap();
        assert_eq!(decoded(DynamicImage::ImageLumaA16(grey)).pixels, [1]);
        let rgb = image::ImageBuffer::from_raw(2, 1, vec![0x00ffu16, 0x0180, 0x80ff, 0xffff, 0xfe80, 0x7f80]).unwrap();
        assert_eq!(decoded(DynamicImage::ImageRgb16(rgb)).pixels, [0, 1, 128, 255, 254, 127]);
        let rgba = image::ImageBuffer::from_raw(1, 1, vec![0x00ffu16, 0x0180, 0x80ff, 0xffff]).unwrap();
        assert_eq!(decoded(DynamicImage::ImageRgba16(rgba)).pixels, [0, 1, 128]);
    }

    #[test]
    fn an_image_file_is_decoded_within_limits() {
        let mut png = Vec::new();
        let grey = image::GrayImage::from_raw(3, 3, pattern(3, 3).pixels).unwrap();
        grey.write_to(&mut Cursor::new(&mut png), ImageFormat::Png).unwrap();
        assert_eq!(Picture::decode(&png, false, &Limits::default()), Ok(pattern(3, 3)));

        let small = Limits { input_elements: 8, ..Limits::default() };
        let error = Picture::decode(&png, false, &small).unwrap_err();
        assert!(error.contains("9 pixels") || error.contains("imit"), "{error}");
        let error = Picture::decode(&png[..40], false, &Limits::default()).unwrap_err();
        assert!(error.contains("cannot be read"), "{error}");
        let error = Picture::decode(b"GIF89a", false, &Limits::default()).unwrap_err();
        assert!(error.contains("neither PNG nor JPEG"), "{error}");
    }
}

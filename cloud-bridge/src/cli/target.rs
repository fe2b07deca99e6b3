//! Which devices are meant on a command line: by labels, by an expression, or by both.

use bridge_core::is_label_value;
use protocol::StreamName;

/// Devices by labels or by an expression; by both, those that all of it is true of.
#[derive(Debug, clap::Args)]
pub(super) struct Meant {
    /// Devices with this label [may be repeated]
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Devices that an expression means, such as `site=plant-3 and not online`
    #[arg(long, value_name = "EXPRESSION")]
    to: Option<String>,
}

impl Meant {
    /// As one expression; none where all are meant.
    pub(super) fn expression(&self) -> Option<String> {
        let labels = self.labels.iter().map(|(key, value)| format!("label.{key}=\"{value}\""));
        let meant: Vec<String> = labels.chain(self.to.iter().map(|to| format!("({to})"))).collect();
        (!meant.is_empty()).then(|| meant.join(" and "))
    }
}

/// `KEY=VALUE`, as land takes it.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    key.parse::<StreamName>().map_err(|_| "keys are 1 to 63 of a-z 0-9 - _ ., beginning with a letter or a digit")?;
    // Nothing of it could be taken for more of the expression.
    match is_label_value(value) {
        true => Ok((key.to_owned(), value.to_owned())),
        false => Err("values are 1 to 63 of a-z A-Z 0-9 - _ . / + :".into()),
    }
}

//! Which devices are meant on a command line: by labels, by an expression, or by both.

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

/// `KEY=VALUE`
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| "write KEY=VALUE".into())
}

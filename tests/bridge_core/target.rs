//! Whom an expression means.

use super::*;
use bridge_core::{Device, Target, TargetError};

/// Board, labels, and the rest as every device of these tables has it.
fn machine(id: &str, board: &str, labels: &[(&str, &str)]) -> Device {
    let mut bench = fleet(&[]);
    let mut device = bench.bridge.devices()[&device("a")].clone();
    device.id = id.parse().unwrap();
    device.profile.board = board.into();
    device.labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    bench.happen("here a");
    device
}

#[test]
fn an_expression_is_true_of_the_devices_that_it_describes() {
    let devices = [
        machine("one", "rpi4", &[("site", "plant-3")]),
        machine("two", "jetson", &[("site", "plant-3"), ("pinned", "yes")]),
        machine("three", "rpi4", &[("site", "plant-4"), ("line", "12")]),
        machine("four", "x", &[("line", "9"), ("fw", "1.10.0"), ("old", "false")]),
    ];
    for (expression, expected) in [
        ("all", "one two three four"),
        ("site=plant-3 and board in (rpi4, jetson) and not label.pinned", "one"),
        ("site = plant-3", "one two"),
        ("site != plant-3", "three four"),
        ("not site", "four"),
        ("pinned or line", "two three four"),
        // Numbers are numbers, and versions go part by part.
        ("line > 10", "three"),
        ("line <= 9", "four"),
        ("fw >= 1.9", "four"),
        ("fw < 1.9", ""),
        ("old", ""),
        ("label.old = false", "four"),
        // `and` binds closer than `or`.
        ("site=plant-4 or site=plant-3 and board=jetson", "two three"),
        ("(site=plant-4 or site=plant-3) and board=rpi4", "one three"),
        ("not (board=rpi4 or board=x)", "two"),
        ("id in (one, 'four')", "one four"),
        ("ram_mb >= 64 and arch=\"aarch64\" and not metered", "one two three four"),
        ("cores=1 and models_mb=64 and agent=0.1.0 and not online", "one two three four"),
    ] {
        let target: Target = expression.parse().unwrap();
        let meant: Vec<&str> = devices.iter().filter(|d| target.holds(d)).map(|d| d.id.as_str()).collect();
        assert_eq!(meant.join(" "), expected, "{expression}");
        let again: Target = serde_json::from_str(&serde_json::to_string(&target).unwrap()).unwrap();
        assert_eq!(again, target);
    }
}

#[test]
fn what_is_no_expression_is_pointed_at() {
    for (expression, expected) in [
        ("", "a fact or a label was expected here, such as `board` or `site`\n  \n  ^"),
        ("site=", "a value was expected here\n  site=\n       ^"),
        ("site==a", "a value was expected here\n  site==a\n       ^"),
        ("(a", "`)` was expected here\n  (a\n    ^"),
        ("a b", "`and`, `or` or the end was expected here\n  a b\n    ^"),
        ("a in b", "`(` was expected here: board in (rpi4, rpi5)\n  a in b\n       ^"),
        ("a in (b c)", "`,` or `)` was expected here\n  a in (b c)\n          ^"),
        ("a = 'b", "this quotation has no end\n  a = 'b\n      ^"),
        ("größe ; x", "`;` means nothing here; put values that hold it in quotes\n  größe ; x\n        ^"),
        ("a and or b", "a fact or a label was expected here, such as `board` or `site`\n  a and or b\n        ^"),
    ] {
        let error: TargetError = expression.parse::<Target>().unwrap_err();
        assert_eq!(error.to_string(), expected, "{expression}");
    }
    let deep = "not ".repeat(200) + "a";
    assert!(deep.parse::<Target>().unwrap_err().to_string().starts_with("more than 64 parentheses"));
    assert!("a".repeat(5_000).parse::<Target>().unwrap_err().to_string().starts_with("longer than"));
    assert!("a\u{1b}[2J".parse::<Target>().unwrap_err().to_string().starts_with("a control character"));
}

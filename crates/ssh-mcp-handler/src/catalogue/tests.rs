use std::collections::HashSet;

use super::*;

fn names(words: &str) -> Vec<&'static str> {
    let words: Vec<String> = words.split(',').map(str::to_owned).collect();
    listed(&words).0.iter().map(|row| row.name).collect()
}

#[test]
fn sets_put_in_and_take_out_from_left_to_right() {
    let all: Vec<_> = tools::rows().map(|row| row.name).collect();
    assert_eq!(names("all"), all);
    assert_eq!(names("ALL , connection"), all);
    assert!(!names("all,-ssh_resources").contains(&"ssh_resources"));
    assert_eq!(names("-ssh_resources").len(), all.len() - 1);
    assert!(names("all,-connection,ssh_resources").contains(&"ssh_resources"));
    assert_eq!(names("all,-all"), [""; 0]);
}

#[test]
fn read_only_is_every_tool_that_only_looks() {
    let expected: Vec<_> =
        tools::rows().filter(|row| row.effect == Effect::ReadOnly).map(|row| row.name).collect();
    assert_eq!(names("read_only"), expected);
}

#[test]
fn words_that_mean_nothing_are_told_with_the_nearest() {
    let problems = unknown_toolsets(&["al".into(), "core".into(), "-ssh_resource".into()]);
    let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "al is neither a tool set nor a tool; the nearest is all",
            "-ssh_resource is neither a tool set nor a tool; the nearest is ssh_resources"
        ]
    );
}

#[test]
fn rows_are_in_order_and_short() {
    let mut seen = HashSet::new();
    for row in tools::rows() {
        assert!(seen.insert(row.name), "{} twice", row.name);
        assert!(row.description.chars().count() <= 600, "{}: {}", row.name, row.description.chars().count());
        assert!(!row.title.is_empty() && !row.sets.is_empty(), "{}", row.name);
        assert!(row.effect != Effect::ReadOnly || row.key == tools::Key::Ignored, "{}", row.name);
    }
}

#[test]
fn a_tool_left_out_names_its_set() {
    let settings = Settings { toolsets: vec!["-connection".into()], ..Settings::default() };
    let catalogue = Catalogue::new(Arc::new(settings));
    let Err(NoTool::LeftOut(_, failure)) = catalogue.find("ssh_resources") else { panic!("left out") };
    assert_eq!(failure.code, Code::FeatureDisabled);
    assert!(failure.detail().contains("set=connection"), "{}", failure.detail());
    assert!(matches!(catalogue.find("ssh_unheard_of"), Err(NoTool::Unknown)));
}

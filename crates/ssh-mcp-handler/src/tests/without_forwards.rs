//! A build without `port_forward`: the tools are not there, and whoever asks for them is told that another build has them.

use serde_json::json;
use ssh_mcp_core::settings::{LegacyTools, Settings};

use super::rig::{Rig, settings};

#[tokio::test(start_paused = true)]
async fn forwards_belong_to_another_build() {
    let rig = Rig::new();
    let listed: Vec<&str> = rig.shared.catalogue.entries().iter().map(|entry| entry.row.name).collect();
    assert!(listed.iter().all(|name| !name.contains("forward")), "{listed:?}");
    for tool in ["ssh_forward", "ssh_forward_close"] {
        let refused = rig.fails(tool, json!({})).await;
        assert_eq!(refused.fact("code"), "FEATURE_DISABLED");
        assert!(refused.fact("detail").contains("feature=port_forward"), "{}", refused.text);
    }
    let uri = "forward://0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b/events";
    for (tool, asked) in [("sub_open", json!({ "uri": uri })), ("sub_wait", json!({ "uris": [uri] }))] {
        assert_eq!(rig.fails(tool, asked).await.fact("code"), "FEATURE_DISABLED");
    }
    let refused = rig.read(uri).unwrap_err();
    assert_eq!((refused.code.0, &refused.data.unwrap()["kind"]), (-32602, &json!("feature_disabled")));
    let templates = crate::resources::templates(&rig.shared.catalogue);
    assert!(templates.iter().all(|template| !template.uri_template.starts_with("forward")));
}

#[tokio::test(start_paused = true)]
async fn so_do_those_of_older_systems() {
    for system in [LegacyTools::V001, LegacyTools::V003] {
        let settings = Settings { legacy_tools: system, ..settings() };
        let rig = Rig::with(ssh_mcp_testkit::host::ScriptedHost::new(), settings);
        let refused = rig.raw("ssh_forward", json!({}), None).await.unwrap();
        let facts = refused.structured_content.unwrap();
        assert_eq!((refused.is_error, &facts["code"]), (Some(true), &json!("FEATURE_DISABLED")));
    }
}

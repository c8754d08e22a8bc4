#!/bin/sh
# Rewrites the generated parts of the documentation from the code; review the result as a diff.
set -eu
cd "$(dirname "$0")/.."
export SSH_MCP_BLESS=1
cargo test --quiet --package ssh-mcp-server --test configuration_page the_page_is_up_to_date
cargo test --quiet --package ssh-mcp-server --lib the_published_schema
cargo test --quiet --package ssh-mcp-handler --lib the_published

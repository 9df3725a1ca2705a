//! How much room a row takes, with its index entries.

use crate::{SCHEMA, Setting};

pub(crate) fn measure(setting: &Setting<'_>) {
    for table in ["grants", "tokens", "log"] {
        let sql = format!(
            "SELECT pg_total_relation_size('{SCHEMA}.{table}')::float8 \
             / greatest((SELECT count(*) FROM {SCHEMA}.{table}), 1)"
        );
        let size = setting.runtime.block_on(setting.raw.number(&sql));
        setting.suite.say(format_args!("{table}: {size:.0} bytes a row"));
    }
}

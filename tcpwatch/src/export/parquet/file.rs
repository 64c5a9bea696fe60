//! One Parquet file, a row group at a time.

use std::{
    io::{self, Write},
    sync::Arc,
};

use parquet::{
    basic::{
        Compression, Encoding, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel,
    },
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int64Type},
    errors::ParquetError,
    file::{
        metadata::{KeyValue, SortingColumn},
        properties::{WriterProperties, WriterPropertiesBuilder},
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::types::{ColumnPath, Type},
};
use rustc_hash::FxHashMap;

use super::{
    columns::{COLUMNS, Coding, Column, HOST, Origin, TS, Text, Values},
    row::Row,
};
use crate::trace::meta::Meta;

/// Most rows of a row group.
const GROUP_ROWS: usize = 128 * 1024;
/// Text of findings after which a row group is full.
const GROUP_TEXT: usize = 32 * 1024 * 1024;
/// Values handed to the column writer at once.
const CHUNK: usize = 4096;
/// zstd's own default; encodings have taken out what levels could, so 1 is no faster and 3 no larger.
const ZSTD_LEVEL: i32 = 3;

/// Collects rows and writes them.
pub(super) struct ParquetFile<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: Vec<&'static Column>,
    origin: Arc<Origin>,
    rows: Vec<Row>,
    text: usize,
}

impl<W: Write + Send> ParquetFile<W> {
    /// Begins a file; without the column `host` if the directory says it.
    pub(super) fn new(
        out: W,
        meta: &Meta,
        origin: Arc<Origin>,
        with_host: bool,
    ) -> io::Result<Self> {
        let columns: Vec<_> =
            COLUMNS.iter().filter(|column| with_host || column.name != HOST).collect();
        let schema = Arc::new(schema(&columns).map_err(io_error)?);
        let properties = Arc::new(properties(meta, &columns).map_err(io_error)?);
        let writer = SerializedFileWriter::new(out, schema, properties).map_err(io_error)?;
        Ok(Self { writer, columns, origin, rows: Vec::new(), text: 0 })
    }

    /// Adds a row.
    pub(super) fn push(&mut self, row: Row) -> io::Result<()> {
        self.text += row.text_len();
        self.rows.push(row);
        if self.rows.len() >= GROUP_ROWS || self.text >= GROUP_TEXT {
            self.write_group()?;
        }
        Ok(())
    }

    /// Writes what is left and the footer. `lost` transitions are missing.
    pub(super) fn finish(mut self, lost: u64) -> io::Result<W> {
        if !self.rows.is_empty() {
            self.write_group()?;
        }
        let lost = KeyValue::new("tcpwatch.lost".to_owned(), lost.to_string());
        self.writer.append_key_value_metadata(lost);
        // `into_inner` forgets what kind of error the writer had.
        self.writer.flush()?;
        self.writer.into_inner().map_err(io_error)
    }

    fn write_group(&mut self) -> io::Result<()> {
        self.rows.sort_by_key(Row::order);
        let mut group = self.writer.next_row_group().map_err(io_error)?;
        for column in &self.columns {
            let Some(mut writer) = group.next_column().map_err(io_error)? else { break };
            write_column(&mut writer, column, &self.rows, &self.origin).map_err(io_error)?;
            writer.close().map_err(io_error)?;
        }
        group.close().map_err(io_error)?;
        self.rows.clear();
        self.text = 0;
        Ok(())
    }
}

fn write_column(
    writer: &mut SerializedColumnWriter<'_>,
    column: &Column,
    rows: &[Row],
    origin: &Origin,
) -> Result<(), ParquetError> {
    match column.values {
        Values::Wall(value) => {
            let mut values = Vec::with_capacity(CHUNK);
            for chunk in rows.chunks(CHUNK) {
                values.clear();
                values.extend(chunk.iter().map(value));
                writer.typed::<Int64Type>().write_batch(&values, None, None)?;
            }
            Ok(())
        }
        Values::Int(value) => write_values::<Int64Type>(writer, rows, value),
        Values::Bool(value) => write_values::<BoolType>(writer, rows, value),
        Values::Text(value) if column.coding == Coding::Dictionary => {
            let mut shared = SharedText::default();
            write_values::<ByteArrayType>(writer, rows, |row| {
                value(row, origin).map(|text| shared.bytes(text))
            })
        }
        Values::Text(value) => {
            let value = |row| value(row, origin).map(Text::bytes);
            write_values::<ByteArrayType>(writer, rows, value)
        }
    }
}

/// Writes optional values: those that are there, and a level for each row that says which are.
fn write_values<'a, T: DataType>(
    writer: &mut SerializedColumnWriter<'_>,
    rows: &'a [Row],
    mut value: impl FnMut(&'a Row) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let (mut values, mut levels) = (Vec::with_capacity(CHUNK), Vec::with_capacity(CHUNK));
    for chunk in rows.chunks(CHUNK) {
        values.clear();
        levels.clear();
        for row in chunk {
            let value = value(row);
            levels.push(i16::from(value.is_some()));
            values.extend(value);
        }
        writer.typed::<T>().write_batch(&values, Some(&levels), None)?;
    }
    Ok(())
}

/// Makes the same text one allocation.
#[derive(Default)]
struct SharedText<'a> {
    seen: FxHashMap<Text<'a>, ByteArray>,
    last: Option<(Text<'a>, ByteArray)>,
}

impl<'a> SharedText<'a> {
    fn bytes(&mut self, text: Text<'a>) -> ByteArray {
        // Some columns have one value only.
        if let Some((last, bytes)) = &self.last
            && *last == text
        {
            return bytes.clone();
        }
        let bytes = self.seen.entry(text).or_insert_with(|| text.bytes()).clone();
        self.last = Some((text, bytes.clone()));
        bytes
    }
}

impl Text<'_> {
    fn bytes(self) -> ByteArray {
        match self {
            Self::Str(text) => text.into(),
            Self::Addr(addr) => addr.to_string().into_bytes().into(),
            Self::Comm(comm) => comm.to_string().into_bytes().into(),
        }
    }
}

fn schema(columns: &[&Column]) -> Result<Type, ParquetError> {
    let fields = columns.iter().map(|column| field(column).map(Arc::new));
    Type::group_type_builder("tcpwatch").with_fields(fields.collect::<Result<_, _>>()?).build()
}

fn field(column: &Column) -> Result<Type, ParquetError> {
    let utc_microseconds = LogicalType::timestamp(true, TimeUnit::MICROS);
    let (physical, logical) = match column.values {
        Values::Wall(_) => (Physical::INT64, Some(utc_microseconds)),
        Values::Int(_) => (Physical::INT64, None),
        Values::Bool(_) => (Physical::BOOLEAN, None),
        Values::Text(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
    };
    let always = matches!(column.values, Values::Wall(_));
    Type::primitive_type_builder(column.name, physical)
        .with_logical_type(logical)
        .with_repetition(if always { Repetition::REQUIRED } else { Repetition::OPTIONAL })
        .build()
}

fn properties(meta: &Meta, columns: &[&Column]) -> Result<WriterProperties, ParquetError> {
    let sorting =
        SortingColumn { column_idx: i32::try_from(TS)?, descending: false, nulls_first: false };
    let builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_sorting_columns(Some(vec![sorting]))
        .set_key_value_metadata(Some(key_values(meta)));
    Ok(columns.iter().fold(builder, |builder, column| coding(builder, column)).build())
}

fn coding(builder: WriterPropertiesBuilder, column: &Column) -> WriterPropertiesBuilder {
    let path = || ColumnPath::from(column.name);
    match column.coding {
        Coding::Dictionary => builder,
        Coding::Delta => builder
            .set_column_dictionary_enabled(path(), false)
            .set_column_encoding(path(), Encoding::DELTA_BINARY_PACKED),
        Coding::Plain => builder.set_column_dictionary_enabled(path(), false),
    }
}

fn key_values(meta: &Meta) -> Vec<KeyValue> {
    [
        ("tcpwatch.tool", &meta.tool),
        ("tcpwatch.recording", &meta.recording),
        ("tcpwatch.host", &meta.host),
        ("tcpwatch.kernel", &meta.kernel),
        ("tcpwatch.machine", &meta.machine),
        ("tcpwatch.boot_id", &meta.boot_id),
    ]
    .into_iter()
    .map(|(key, value)| KeyValue::new(key.to_owned(), value.clone()))
    .collect()
}

/// The writer's own error where there was one: a closed pipe and a full disk are told apart.
fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}

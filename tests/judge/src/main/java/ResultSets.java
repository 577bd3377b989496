import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayInputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.linkis.common.io.MetaData;
import org.apache.linkis.common.io.Record;
import org.apache.linkis.common.io.resultset.ResultSet;
import org.apache.linkis.storage.LineMetaData;
import org.apache.linkis.storage.LineRecord;
import org.apache.linkis.storage.domain.Column;
import org.apache.linkis.storage.domain.DataType;
import org.apache.linkis.storage.domain.Dolphin;
import org.apache.linkis.storage.resultset.ResultSetFactory;
import org.apache.linkis.storage.resultset.StorageResultSetReader;
import org.apache.linkis.storage.resultset.StorageResultSetWriter;
import org.apache.linkis.storage.resultset.table.TableMetaData;
import org.apache.linkis.storage.resultset.table.TableRecord;

/** Linkis's own reader and writer of result sets (linkis-storage), on bytes: no file system of Linkis's is asked. */
final class ResultSets {
  // Over what any of our files has: the writer keeps everything in memory and opens no file.
  private static final long IN_MEMORY = 64L << 20;

  private ResultSets() {}

  /** What the reader sees in a .dolphin file: its type, its columns or meta data, and each record. */
  static Map<String, Object> read(String file) throws Exception {
    byte[] bytes = Files.readAllBytes(Path.of(file));
    String type = Dolphin.getType(new ByteArrayInputStream(bytes));
    @SuppressWarnings("unchecked")
    ResultSet<MetaData, Record> resultSet =
        (ResultSet<MetaData, Record>) ResultSetFactory.getInstance().getResultSetByType(type);
    Map<String, Object> seen = new LinkedHashMap<>();
    seen.put("type", ResultSetFactory.resultSetType().apply(type));
    List<Object> records = new ArrayList<>();
    try (var reader = new StorageResultSetReader<>(resultSet, new ByteArrayInputStream(bytes))) {
      MetaData metaData = reader.getMetaData();
      if (metaData instanceof TableMetaData table) {
        seen.put("columns", Arrays.stream(table.columns()).map(ResultSets::column).toList());
      } else if (metaData instanceof LineMetaData line) {
        seen.put("metaData", line.getMetaData());
      }
      while (reader.hasNext()) {
        Record record = reader.getRecord();
        records.add(record instanceof TableRecord row ? values(row) : String.valueOf(record));
      }
      seen.put("records", records);
      seen.put("position", reader.getPosition());
      seen.put("unread", reader.available());
    }
    return seen;
  }

  private static Map<String, Object> column(Column column) {
    Map<String, Object> shown = new LinkedHashMap<>();
    shown.put("name", column.columnName());
    shown.put("dataType", column.dataType().typeName());
    shown.put("comment", column.comment());
    return shown;
  }

  /** The values, and of which Java class each is: a NaN is text here, for JSON has none. */
  private static List<Object> values(TableRecord row) {
    List<Object> values = new ArrayList<>();
    for (Object value : (Object[]) row.row()) {
      Map<String, Object> shown = new LinkedHashMap<>();
      shown.put("class", value == null ? null : value.getClass().getSimpleName());
      shown.put("value", value == null ? null : value.toString());
      values.add(shown);
    }
    return values;
  }

  /**
   * What Linkis's writer makes of a specification: {"type": "TABLE", "columns": [[name, type, comment], …], "rows":
   * [[…], …]} or {"type": "TEXT", "records": ["…", …]}.
   */
  static Map<String, Object> write(String specification, String file) throws Exception {
    JsonNode asked = new ObjectMapper().readTree(Path.of(specification).toFile());
    byte[] bytes = asked.get("type").asText().equals("TABLE") ? table(asked) : text(asked);
    Files.write(Path.of(file), bytes);
    return Map.of("bytes", bytes.length);
  }

  private static byte[] table(JsonNode asked) throws Exception {
    List<Column> columns = new ArrayList<>();
    for (JsonNode column : asked.get("columns")) {
      DataType type = DataType.toDataType(column.get(1).asText());
      columns.add(new Column(column.get(0).asText(), type, column.get(2).isNull() ? null : column.get(2).asText()));
    }
    List<Record> records = new ArrayList<>();
    for (JsonNode row : asked.get("rows")) {
      Object[] values = new Object[columns.size()];
      for (int at = 0; at < values.length; at++) {
        values[at] = value(columns.get(at).dataType().typeName(), row.get(at));
      }
      records.add(new TableRecord(values));
    }
    return written(ResultSetFactory.TABLE_TYPE(), new TableMetaData(columns.toArray(new Column[0])), records);
  }

  /** A value as an engine has it: of the column's own Java class, which decides how it is spelt. */
  private static Object value(String type, JsonNode value) {
    if (value.isNull()) {
      return null;
    }
    return switch (type) {
      case "short", "int", "long", "bigint" -> value.asLong();
      // "NaN" and "Infinity" come as text.
      case "float", "double" -> Double.valueOf(value.asText());
      case "boolean" -> value.asBoolean();
      default -> value.asText();
    };
  }

  private static byte[] text(JsonNode asked) throws Exception {
    List<Record> records = new ArrayList<>();
    for (JsonNode record : asked.get("records")) {
      records.add(new LineRecord(record.asText()));
    }
    // As Linkis's engines do it: without meta data.
    return written(ResultSetFactory.TEXT_TYPE(), new LineMetaData(null), records);
  }

  private static byte[] written(String type, MetaData metaData, List<Record> records) throws Exception {
    @SuppressWarnings("unchecked")
    ResultSet<MetaData, Record> resultSet =
        (ResultSet<MetaData, Record>) ResultSetFactory.getInstance().getResultSetByType(type);
    var writer = new StorageResultSetWriter<>(resultSet, IN_MEMORY, null);
    writer.addMetaData(metaData);
    for (Record record : records) {
      writer.addRecord(record);
    }
    return writer.toString().getBytes(StandardCharsets.UTF_8);
  }
}

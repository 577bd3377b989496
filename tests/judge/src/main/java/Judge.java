import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Runs Linkis's own classes and prints a JSON line for each step: what they understood, or the exception that they threw.
 *
 * <p>{@code gateway key=value …} drives a gateway with Linkis's client; {@code read-dolphin FILE…} and {@code
 * write-dolphin (SPECIFICATION FILE)…} are Linkis's result-set reader and writer. Must not judge: the tests do.
 */
public final class Judge {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final PrintStream OUT = System.out;

  private Judge() {}

  /** What a step does; its value is printed as JSON. */
  interface Step {
    Object run() throws Exception;
  }

  public static void main(String[] arguments) throws Exception {
    // Log4j and Linkis's own prints go elsewhere: only our lines are on standard output.
    System.setOut(System.err);
    switch (arguments.length == 0 ? "" : arguments[0]) {
      case "gateway" -> new GatewayScript(named(arguments)).run();
      case "read-dolphin" -> {
        for (int at = 1; at < arguments.length; at++) {
          String file = arguments[at];
          step(file, () -> ResultSets.read(file));
        }
      }
      case "write-dolphin" -> {
        for (int at = 1; at + 1 < arguments.length; at += 2) {
          String specification = arguments[at];
          String file = arguments[at + 1];
          step(file, () -> ResultSets.write(specification, file));
        }
      }
      default -> {
        System.err.println("give gateway key=value …, read-dolphin FILE…, or write-dolphin (SPECIFICATION FILE)…");
        System.exit(2);
      }
    }
    OUT.flush();
    // Linkis's schedulers have threads that are no daemons.
    System.exit(0);
  }

  private static Map<String, String> named(String[] arguments) {
    Map<String, String> named = new LinkedHashMap<>();
    for (int at = 1; at < arguments.length; at++) {
      String[] parts = arguments[at].split("=", 2);
      named.put(parts[0], parts[1]);
    }
    return named;
  }

  /** Runs a step and prints its line; an exception is a result like any other. */
  static void step(String name, Step step) throws Exception {
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("step", name);
    long began = System.nanoTime();
    try {
      line.put("result", step.run());
    } catch (Exception | LinkageError error) {
      line.put("error", error.getClass().getSimpleName());
      line.put("message", String.valueOf(error.getMessage()));
    }
    line.put("millis", (System.nanoTime() - began) / 1_000_000);
    OUT.write((JSON.writeValueAsString(line) + "\n").getBytes(StandardCharsets.UTF_8));
  }
}

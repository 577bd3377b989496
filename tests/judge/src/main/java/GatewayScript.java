import java.lang.reflect.Proxy;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.linkis.bml.client.BmlClient;
import org.apache.linkis.bml.protocol.BmlUploadResponse;
import org.apache.linkis.common.ServiceInstance;
import org.apache.linkis.computation.client.once.LinkisManagerClient;
import org.apache.linkis.computation.client.once.LinkisManagerClientImpl;
import org.apache.linkis.computation.client.once.action.AskEngineConnAction;
import org.apache.linkis.computation.client.once.action.CreateEngineConnAction;
import org.apache.linkis.computation.client.once.action.ECMOperateAction;
import org.apache.linkis.computation.client.once.action.ECMOperateByECAction;
import org.apache.linkis.computation.client.once.action.ECResourceInfoAction;
import org.apache.linkis.computation.client.once.action.EngineConnOperateAction;
import org.apache.linkis.computation.client.once.action.GetEngineConnAction;
import org.apache.linkis.computation.client.once.action.KillEngineConnAction;
import org.apache.linkis.computation.client.once.action.ListEngineConnAction;
import org.apache.linkis.computation.client.once.result.ECResourceInfoResult;
import org.apache.linkis.computation.client.once.result.EngineConnOperateResult;
import org.apache.linkis.computation.client.once.result.GetEngineConnResult;
import org.apache.linkis.computation.client.once.simple.ExistingSimpleOnceJob;
import org.apache.linkis.computation.client.once.simple.SimpleOnceJob;
import org.apache.linkis.computation.client.once.simple.SimpleOnceJobBuilder;
import org.apache.linkis.computation.client.once.simple.SubmittableSimpleOnceJob;
import org.apache.linkis.computation.client.operator.impl.ApplicationInfo;
import org.apache.linkis.computation.client.operator.impl.EngineConnCommonOperator;
import org.apache.linkis.computation.client.operator.impl.EngineConnLogOperator;
import org.apache.linkis.computation.client.operator.impl.EngineConnLogs;
import org.apache.linkis.computation.client.operator.impl.EngineConnProgressInfo;
import org.apache.linkis.httpclient.dws.authentication.TokenAuthenticationStrategy;
import org.apache.linkis.httpclient.dws.config.DWSClientConfigBuilder;
import org.apache.linkis.ujes.client.UJESClientImpl;
import org.apache.linkis.ujes.client.request.EmsListAction;
import org.apache.linkis.ujes.client.response.EmsListResult;

/**
 * The life of an engine through Linkis's once-job SDK and its LinkisManagerClient, and what they make of refusals.
 *
 * <p>What the calls need of the gateway comes as arguments: url, token, user, admin, strangersInstance and
 * strangersTicket (another user's engine). What a creator stands for is the test's: see test_linkis_client.py.
 */
final class GatewayScript {
  private static final String ENGINECONN = "linkis-cg-engineconn";
  private static final int MOST_PAGES = 50;
  private static final int MILLIS = 20_000;

  private final Map<String, String> given;
  private final String user;
  private final UJESClientImpl ujes;
  private final LinkisManagerClient manager;
  private SubmittableSimpleOnceJob job;
  private String second;

  GatewayScript(Map<String, String> given) {
    this.given = given;
    this.user = given.get("user");
    this.ujes = client(given.get("token"), false);
    this.manager = new LinkisManagerClientImpl(ujes);
  }

  private UJESClientImpl client(String token, boolean discovery) {
    DWSClientConfigBuilder config = DWSClientConfigBuilder.newBuilder();
    config.addServerUrl(given.get("url"));
    config.connectionTimeout(MILLIS);
    config.readTimeout(MILLIS);
    config.discoveryEnabled(discovery);
    config.loadbalancerEnabled(discovery);
    config.discoveryFrequency(1, TimeUnit.MINUTES);
    config.maxConnectionSize(4);
    config.retryEnabled(false);
    config.setAuthenticationStrategy(new TokenAuthenticationStrategy());
    config.setAuthTokenKey(TokenAuthenticationStrategy.TOKEN_KEY());
    config.setAuthTokenValue(token);
    config.setDWSVersion("v1");
    return new UJESClientImpl(config.build());
  }

  void run() throws Exception {
    life();
    operators();
    logs();
    lists();
    refusals();
    end();
  }

  private void life() throws Exception {
    Judge.step("submit", () -> {
      job = new SubmittableSimpleOnceJob(manager, create("IDE", "once"));
      job.submit();
      Map<String, Object> seen = new LinkedHashMap<>();
      seen.put("id", job.getId());
      seen.put("status", job.getStatus());
      seen.put("completed", job.isCompleted());
      seen.put("serviceInstance", shown(job.getEcServiceInstance()));
      seen.put("ticketId", job.getEcTicketId());
      seen.put("ecmServiceInstance", shown(job.getECMServiceInstance()));
      return seen;
    });
    Judge.step("create", () -> {
      GetEngineConnResult made = manager.createEngineConn(create("second"));
      second = made.getServiceInstance().getInstance();
      return node(made);
    });
    Judge.step("createOnce", () -> node(manager.createEngineConn(create("never", "once"))));
    Judge.step("ask", () -> {
      AskEngineConnAction.Builder ask = AskEngineConnAction.newBuilder();
      return node(manager.askEngineConn(ask.setUser(user).setLabels(labels("IDE")).setMaxSubmitTime(MILLIS).build()));
    });
    Judge.step("get", () -> node(get(job.getEcServiceInstance().getInstance(), job.getEcTicketId())));
    Judge.step("getWithoutAgent", () -> node(get(second, null)));
    Judge.step("getByTicket", () -> node(get(null, job.getEcTicketId())));
    Judge.step("existing", () -> {
      ExistingSimpleOnceJob known = new ExistingSimpleOnceJob(manager, job.getId(), user);
      Map<String, Object> seen = new LinkedHashMap<>();
      seen.put("completed", known.isCompleted());
      seen.put("status", known.getStatus());
      seen.put("serviceInstance", shown(known.getEcServiceInstance()));
      return seen;
    });
  }

  private void operators() throws Exception {
    Judge.step("progress", () -> {
      EngineConnProgressInfo info = (EngineConnProgressInfo) job.getOperator("engineConnProgress").apply();
      List<Object> tasks = new ArrayList<>();
      for (var task : info.progressInfo()) {
        tasks.add(Map.of("id", task.id(), "total", task.totalTasks(), "running", task.runningTasks(),
            "failed", task.failedTasks(), "succeeded", task.succeedTasks()));
      }
      return Map.of("progress", info.progress(), "tasks", tasks);
    });
    // Each operator's result is cast to what its class declares, as a caller's code is.
    Judge.step("metrics", () -> (Map<?, ?>) job.getOperator("engineConnMetrics").apply());
    Judge.step("diagnosis", () -> (Map<?, ?>) job.getOperator("engineConnDiagnosis").apply());
    Judge.step("status", () -> {
      EngineConnCommonOperator common = (EngineConnCommonOperator) job.getOperator("engineConnCommon");
      common.setRealOperatorName("status");
      return common.apply();
    });
    Judge.step("yarnApplication", () -> (ApplicationInfo) job.getOperator("engineConnYarnApplication").apply());
    Judge.step("unknownOperator", () -> {
      EngineConnCommonOperator common = (EngineConnCommonOperator) job.getOperator("engineConnCommon");
      common.setRealOperatorName("formatDisks");
      return common.apply();
    });
  }

  private void logs() throws Exception {
    Judge.step("log", () -> {
      EngineConnLogOperator operator = (EngineConnLogOperator) job.getOperator("engineConnLog");
      operator.setPageSize(100);
      List<Object> pages = new ArrayList<>();
      for (int page = 0; page < MOST_PAGES; page++) {
        EngineConnLogs logs = (EngineConnLogs) operator.apply();
        pages.add(shown(logs));
        if (logs.logs().isEmpty()) {
          break;
        }
      }
      return pages;
    });
    Judge.step("logWithKeyword", () -> {
      EngineConnLogOperator operator = (EngineConnLogOperator) job.getOperator("engineConnLog");
      operator.setOnlyKeywords("the kernel has answered,no such word");
      operator.setPageSize(1000);
      return shown((EngineConnLogs) operator.apply());
    });
    Judge.step("logLastRows", () -> {
      EngineConnLogOperator operator = (EngineConnLogOperator) job.getOperator("engineConnLog");
      operator.setLastRows(3);
      return shown((EngineConnLogs) operator.apply());
    });
    Judge.step("logByEngine", () -> operated(named(ECMOperateByECAction.newBuilder(), "engineConnLog",
        ENGINECONN, job.getEcServiceInstance().getInstance(), Map.of("pageSize", 2, "logType", "stdout"))));
  }

  private void lists() throws Exception {
    Judge.step("list", () ->
        manager.listEngineConn(ListEngineConnAction.newBuilder().setUser(user).build()).getEngines());
    Judge.step("ems", () -> ems(given.get("admin")));
    Judge.step("record", () -> record(job.getEcTicketId()));
    Judge.step("discovery", () -> {
      LinkisManagerClient found = new LinkisManagerClientImpl(client(given.get("token"), true));
      return found.listEngineConn(ListEngineConnAction.newBuilder().setUser(user).build()).getEngines().size();
    });
  }

  private void refusals() throws Exception {
    String stranger = given.get("strangersInstance");
    Judge.step("createOfNoSuchType", () -> {
      Map<String, String> labels = labels("IDE");
      labels.put("engineType", "cobol-1");
      return node(manager.createEngineConn(
          CreateEngineConnAction.newBuilder().setUser(user).setLabels(labels).build()));
    });
    Judge.step("createFromBml", () -> {
      // SimpleOnceJobBuilder gives the job to BML first; this stands for a BML that took it.
      BmlClient bml = (BmlClient) Proxy.newProxyInstance(BmlClient.class.getClassLoader(),
          new Class<?>[] {BmlClient.class}, (self, method, given) -> new BmlUploadResponse(true, "a-job", "v000001"));
      SimpleOnceJobBuilder builder = SimpleOnceJob.builder(bml, manager);
      builder.addExecuteUser(user).setLabels(new HashMap<>(labels("IDE")));
      builder.addJobContent("runType", "python").addJobContent("code", "1+1");
      builder.build().submit();
      return null;
    });
    Judge.step("createThatFails", () -> node(manager.createEngineConn(create("broken"))));
    Judge.step("createThatIsLate", () -> node(manager.createEngineConn(create("late"))));
    Judge.step("getOfStranger", () -> node(get(stranger, null)));
    Judge.step("getOfNobody", () -> node(get("nowhere:1", "no-such-ticket")));
    Judge.step("killOfStranger", () -> kill(stranger));
    Judge.step("killOfNobody", () -> kill("nowhere:1"));
    Judge.step("operateOnStranger", () -> operated(named(EngineConnOperateAction.newBuilder(), "status",
        ENGINECONN, stranger, Map.of())));
    Judge.step("operateOnNobody", () -> operated(named(EngineConnOperateAction.newBuilder(), "status",
        ENGINECONN, "nowhere:1", Map.of())));
    Judge.step("logOfStranger", () -> operated(named(ECMOperateAction.newBuilder(), "engineConnLog",
        job.getECMServiceInstance().getApplicationName(), job.getECMServiceInstance().getInstance(),
        Map.of("engineConnInstance", stranger, "logType", "stdout"))));
    Judge.step("recordOfStranger", () -> record(given.get("strangersTicket")));
    Judge.step("emsOfUser", () -> ems(user));
    Judge.step("wrongToken", () -> {
      LinkisManagerClient closed = new LinkisManagerClientImpl(client("not-" + given.get("token"), false));
      return closed.listEngineConn(ListEngineConnAction.newBuilder().setUser(user).build()).getEngines();
    });
  }

  private void end() throws Exception {
    Judge.step("kill", () -> {
      job.kill();
      Map<String, Object> seen = new LinkedHashMap<>();
      seen.put("completed", job.isCompleted());
      seen.put("status", job.getStatus());
      seen.put("succeeded", job.isSucceed());
      return seen;
    });
    Judge.step("getAfterEnd", () -> node(get(job.getEcServiceInstance().getInstance(), job.getEcTicketId())));
    Judge.step("logAfterEnd", () -> {
      EngineConnLogOperator operator = (EngineConnLogOperator) job.getOperator("engineConnLog");
      operator.setLastRows(2);
      return shown((EngineConnLogs) operator.apply());
    });
    Judge.step("progressAfterEnd", () -> job.getOperator("engineConnProgress").apply());
    Judge.step("listAfterEnd", () ->
        manager.listEngineConn(ListEngineConnAction.newBuilder().setUser(user).build()).getEngines());
    Judge.step("recordAfterEnd", () -> record(job.getEcTicketId()));
  }

  private CreateEngineConnAction create(String creator, String... mode) {
    Map<String, String> properties = new HashMap<>();
    properties.put("wds.linkis.engineconn.java.driver.memory", "1g");
    properties.put("label.codeType", "python");
    CreateEngineConnAction.Builder action = CreateEngineConnAction.newBuilder().setUser(user);
    // As SimpleOnceJobBuilder does; one creator stands for an engine that is not ready in time.
    action.setIgnoreTimeout(true).setCreateService("judge").setDescription("a once job");
    action.setMaxSubmitTime(creator.equals("late") ? 1_000 : MILLIS);
    Map<String, String> labels = labels(creator);
    for (String one : mode) {
      labels.put("engineConnMode", one);
    }
    return action.setLabels(labels).setProperties(properties).build();
  }

  private Map<String, String> labels(String creator) {
    Map<String, String> labels = new HashMap<>();
    labels.put("engineType", "python-3.11");
    labels.put("userCreator", user + "-" + creator);
    return labels;
  }

  private GetEngineConnResult get(String instance, String ticket) {
    GetEngineConnAction.Builder action = GetEngineConnAction.newBuilder();
    action.setUser(user);
    action.setApplicationName(ENGINECONN);
    action.setInstance(instance);
    action.setTicketId(ticket);
    return manager.getEngineConn((GetEngineConnAction) action.build());
  }

  private Object kill(String instance) {
    KillEngineConnAction.Builder action = KillEngineConnAction.newBuilder();
    action.setUser(user);
    action.setApplicationName(ENGINECONN);
    action.setInstance(instance);
    return manager.killEngineConn((KillEngineConnAction) action.build()).getMessage();
  }

  private EngineConnOperateAction named(EngineConnOperateAction.Builder action, String operator,
      String application, String instance, Map<String, Object> parameters) {
    action.operatorName(operator);
    action.setUser(user);
    action.setApplicationName(application);
    action.setInstance(instance);
    action.setParameters(new HashMap<>(parameters));
    return (EngineConnOperateAction) action.build();
  }

  private Object operated(EngineConnOperateAction action) {
    EngineConnOperateResult result = manager.executeEngineConnOperation(action);
    Map<String, Object> seen = new LinkedHashMap<>();
    seen.put("isError", result.getIsError());
    seen.put("errorMsg", result.getErrorMsg());
    seen.put("result", result.getIsError() ? null : result.getResult());
    return seen;
  }

  private Object ems(String as) {
    EmsListResult result = ujes.listECM(EmsListAction.newBuilder().setUser(as).build());
    return result.getData();
  }

  private Object record(String ticket) {
    ECResourceInfoAction action = ECResourceInfoAction.newBuilder().setUser(user).setTicketid(ticket).build();
    ECResourceInfoResult result = (ECResourceInfoResult) ujes.executeUJESJob(action);
    Map<String, Object> seen = new LinkedHashMap<>();
    seen.put("data", result.getData());
    seen.put("getter", result.getECResourceInfoRecord());
    return seen;
  }

  private static Map<String, Object> node(GetEngineConnResult result) {
    Map<String, Object> seen = new LinkedHashMap<>();
    seen.put("message", result.getMessage());
    seen.put("ticketId", result.getTicketId());
    seen.put("nodeStatus", result.getNodeStatus());
    seen.put("serviceInstance", shown(result.getServiceInstance()));
    seen.put("ecmServiceInstance", shown(result.getECMServiceInstance()));
    seen.put("managerServiceInstance", shown(result.getManagerServiceInstance()));
    seen.put("nodeInfo", result.getNodeInfo());
    seen.put("ecMetrics", result.getData().get("ecMetrics"));
    return seen;
  }

  private static Object shown(ServiceInstance instance) {
    return instance == null ? null : Arrays.asList(instance.getApplicationName(), instance.getInstance());
  }

  private static Object shown(EngineConnLogs logs) {
    Map<String, Object> seen = new LinkedHashMap<>();
    seen.put("logPath", logs.logPath());
    seen.put("logs", logs.logs());
    seen.put("endLine", logs.endLine());
    return seen;
  }
}

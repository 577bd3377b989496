{{- /* The specs of the policies that the operator looks for, and what it knows each of their fields by. */}}

{{- define "ecm.admission" }}
{{- /* Volumes (16 by the CRD), pull secrets and the priority class. The API server takes two questions to the authorizer
in one expression and 28 in one policy, so each object is asked for by an expression of its own. */}}
{{- $pullSecrets := 4 }}
{{- $references := add 16 $pullSecrets 1 }}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - apiGroups: [linkis.apache.org]
        apiVersions: ["*"]
        operations: [CREATE, UPDATE]
        resources: [engineconns]
  matchConditions:
    # Owners, finalizers and annotations are the garbage collector's and the gateway's to change.
    - name: spec-is-new
      expression: request.operation == 'CREATE' || object.spec != oldObject.spec
  variables:
    - name: oldVolumes
      expression: >-
        request.operation == 'UPDATE' && has(oldObject.spec.volumes) ? oldObject.spec.volumes : []
    # Who changes something else of an engine, such as the gateway that ends it, is not asked for its volumes.
    - name: volumes
      expression: >-
        (has(object.spec.volumes) ? object.spec.volumes : [])
        .filter(v, !has(v.emptyDir) && !variables.oldVolumes.exists(o, o == v))
    - name: pod
      expression: "has(object.spec.podTemplate) && has(object.spec.podTemplate.spec) ? object.spec.podTemplate.spec : {}"
    - name: oldPod
      expression: >-
        request.operation == 'UPDATE' && has(oldObject.spec.podTemplate) && has(oldObject.spec.podTemplate.spec)
        ? oldObject.spec.podTemplate.spec : {}
    - name: pullSecrets
      expression: >-
        has(variables.pod.imagePullSecrets)
        && !(has(variables.oldPod.imagePullSecrets) && variables.oldPod.imagePullSecrets == variables.pod.imagePullSecrets)
        ? variables.pod.imagePullSecrets : []
    - name: priorityClass
      expression: >-
        has(variables.pod.priorityClassName)
        && !(has(variables.oldPod.priorityClassName) && variables.oldPod.priorityClassName == variables.pod.priorityClassName)
        ? [variables.pod.priorityClassName] : []
    - name: references
      expression: >-
        variables.volumes.map(v,
          has(v.secret) ? ['', 'secrets', string(v.secret.secretName), 'get', 'spec.volumes ' + string(v.name)]
          : has(v.configMap) ? ['', 'configmaps', string(v.configMap.name), 'get', 'spec.volumes ' + string(v.name)]
          : ['', 'persistentvolumeclaims', string(v.persistentVolumeClaim.claimName), 'use', 'spec.volumes ' + string(v.name)])
        + variables.pullSecrets.map(s, ['', 'secrets', string(s.name), 'get', 'spec.podTemplate.spec.imagePullSecrets'])
        + variables.priorityClass.map(c,
          ['scheduling.k8s.io', 'priorityclasses', string(c), 'use', 'spec.podTemplate.spec.priorityClassName'])
  validations:
    {{- if and .Values.clusterWide (not .Values.enginesInReleaseNamespace) }}
    - expression: >-
        request.namespace != '{{ .Release.Namespace }}'
        || request.userInfo.username == 'system:serviceaccount:{{ .Release.Namespace }}:{{ include "ecm.operatorAccounts" . | fromJsonArray | first }}'
      message: >-
        metadata.namespace is that of the ECM itself, where no engines run: take {{ include "ecm.firstEngineNamespace" . }}
      reason: Forbidden
    {{- end }}
    # A name that looks as the mapped names do (linkis_ecm.model.users) may be another user's (docs/design/isolation.md).
    - expression: >-
        (request.userInfo.username == object.spec.user
        && !request.userInfo.username.matches('_x[0-9a-f]{2}|_([0-9a-f]{6}|[0-9a-f]{16}|[0-9a-f]{20})$'))
        || authorizer.group('linkis.apache.org').resource('users').namespace(request.namespace).name(object.spec.user)
        .check('impersonate').allowed()
      messageExpression: >-
        'spec.user ' + object.spec.user
        + (request.userInfo.username == object.spec.user
        ? ' is your name, and reads like one that Linkis has for another name: ask for a'
        : ' is not you (' + request.userInfo.username + '): '
        + (request.userInfo.username.contains('/') || request.userInfo.username.startsWith('.')
        ? 'a name like yours is written as Linkis has it (linkis-ecm user NAME shows it), and needs a'
        : 'write your own name, or ask for a'))
        + ' Role in namespace ' + request.namespace + ' with impersonate on users of linkis.apache.org, resourceNames ['
        + object.spec.user + ']'
      message: "spec.user is not you: write your own name, or ask for impersonate on users of linkis.apache.org"
      reason: Forbidden
    # An engine that is lent is its group's, and each member's code is run in it: nobody else chooses the group.
    - expression: >-
        !has(object.spec.share) || !has(object.spec.share.group)
        || (request.operation == 'UPDATE' && has(oldObject.spec.share) && oldObject.spec.share == object.spec.share)
        || authorizer.group('linkis.apache.org').resource('groups').namespace(request.namespace).name(object.spec.share.group)
        .check('impersonate').allowed()
      messageExpression: >-
        'spec.share.group ' + object.spec.share.group + ': leave spec.share out, which the gateway sets, or ask for a Role in'
        + ' namespace ' + request.namespace + ' with impersonate on groups of linkis.apache.org, resourceNames ['
        + object.spec.share.group + ']'
      message: "spec.share.group is not yours to set: leave spec.share out, or ask for impersonate on groups of linkis.apache.org"
      reason: Forbidden
    - expression: size(variables.pullSecrets) <= {{ $pullSecrets }}
      message: "spec.podTemplate.spec.imagePullSecrets has more than {{ $pullSecrets }} entries: leave some out"
      reason: Invalid
    {{- range $i := untilStep 0 (int $references) 1 }}
    - expression: >-
        size(variables.references) <= {{ $i }}
        || authorizer.group(variables.references[{{ $i }}][0]).resource(variables.references[{{ $i }}][1])
        {{- /* A priority class has no namespace; the authorizer takes the question as asked. */}}
        .namespace(variables.references[{{ $i }}][0] == '' ? request.namespace : '')
        .name(variables.references[{{ $i }}][2]).check(variables.references[{{ $i }}][3]).allowed()
      messageExpression: >-
        variables.references[{{ $i }}][4] + ': you may not ' + variables.references[{{ $i }}][3] + ' '
        + variables.references[{{ $i }}][1] + ' ' + variables.references[{{ $i }}][2] + ': name another, or ask for a role with '
        + variables.references[{{ $i }}][3] + ' on ' + variables.references[{{ $i }}][1] + ', resourceNames ['
        + variables.references[{{ $i }}][2] + ']'
        + (variables.references[{{ $i }}][0] == '' ? '' : ' of ' + variables.references[{{ $i }}][0]
        + ': a ClusterRole and a ClusterRoleBinding, as it has no namespace')
      message: "spec names an object that you may not use: name another, or ask for a role with get or use on it"
      reason: Forbidden
    {{- end }}
{{- end }}

{{- define "ecm.admission-env" }}
{{- $variables := 16 }}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - apiGroups: [linkis.apache.org]
        apiVersions: ["*"]
        operations: [CREATE]
        resources: [engineconns]
  matchConditions:
    # Most engines have none, and the 17 questions below are some 0.4 ms of the API server's processor time.
    - name: names-secrets
      expression: "has(object.spec.env) && object.spec.env.exists(e, has(e.valueFrom))"
  variables:
    - name: references
      expression: "(has(object.spec.env) ? object.spec.env : []).filter(e, has(e.valueFrom))"
  validations:
    # The CRD's own bound, for the case that an older one is in the cluster.
    - expression: size(variables.references) <= {{ $variables }}
      message: "spec.env has more than {{ $variables }} variables with a valueFrom: mount the Secret as a volume instead"
      reason: Invalid
    {{- range $i := untilStep 0 $variables 1 }}
    - expression: >-
        size(variables.references) <= {{ $i }}
        || authorizer.group('').resource('secrets').namespace(request.namespace)
        .name(variables.references[{{ $i }}].valueFrom.secretKeyRef.name).check('get').allowed()
      messageExpression: >-
        'spec.env ' + variables.references[{{ $i }}].name + ': you may not get secrets '
        + variables.references[{{ $i }}].valueFrom.secretKeyRef.name + ': name another, or ask for a role with get on secrets,'
        + ' resourceNames [' + variables.references[{{ $i }}].valueFrom.secretKeyRef.name + ']'
      message: "spec.env names a Secret that you may not read: name another, or ask for a role with get on it"
      reason: Forbidden
    {{- end }}
{{- end }}

{{- /* The argument: root, and the policy's name. */}}
{{- define "ecm.admissionBinding" }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
  {{- if not .root.Values.clusterWide }}
  matchResources:
    namespaceSelector:
      matchExpressions:
        - key: kubernetes.io/metadata.name
          operator: In
          values: {{ include "ecm.engineNames" .root | splitList "," | toJson }}
  {{- end }}
{{- end }}

{{- /* The fields of a spec, each with its digest. The operator takes that of what the API server has, less the API
server's defaults (linkis_ecm.engine.admission.fields). The argument: the spec as one of the templates above gives it. */}}
{{- define "ecm.fields" }}
{{- $fields := list }}
{{- range $field, $value := (fromYaml .).spec }}
{{- $fields = append $fields (printf "%s=%s" $field (toRawJson $value | sha256sum | trunc 32)) }}
{{- end }}
{{- join "," $fields }}
{{- end }}

{{- /* What the operator finds a policy or a binding changed by. */}}
{{- define "ecm.admissionFields" }}
{{- $fields := list }}
{{- range $name := include "ecm.admissionPolicies" . | splitList "," }}
{{- $binding := include "ecm.admissionBinding" (dict "root" $ "name" $name) }}
{{- range splitList "," (include "ecm.fields" (include (ternary "ecm.admission-env" "ecm.admission" (hasSuffix "-env" $name)) $)) }}
{{- $fields = append $fields (printf "policy/%s/%s" $name .) }}
{{- end }}
{{- range splitList "," (include "ecm.fields" $binding) }}
{{- $fields = append $fields (printf "binding/%s/%s" $name .) }}
{{- end }}
{{- end }}
{{- join "," $fields }}
{{- end }}

// A small orbit viewer for one GLB: WebGL 2, no dependencies, nothing fetched.
// Works in a sandboxed frame without origin: the file arrives as base64, textures as bitmaps.
// Ways of looking: lit, wire, normals, uv (a chequer), texture (base colour without light).
// Licence: Apache-2.0, like the rest of dream_cad.
"use strict";
const DreamCadViewer = (() => {
  const TYPES = {5121: Uint8Array, 5123: Uint16Array, 5125: Uint32Array, 5126: Float32Array};
  const WIDTH = {SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4};
  const FULL = {5121: 255, 5123: 65535};

  const VERTEX = `#version 300 es
    in vec3 position; in vec3 normal; in vec3 color; in vec2 uv;
    uniform mat4 view, projection; uniform highp int look;
    out vec3 vNormal, vColor, vAt; out vec2 vUv;
    void main() {
      vec4 at = view * vec4(position, 1.0);
      vAt = at.xyz; vNormal = mat3(view) * normal; vColor = color; vUv = uv;
      gl_Position = projection * at;
      if (look == 5) gl_Position.z -= 0.001 * gl_Position.w;  // edges lie on top of their faces
    }`;
  const FRAGMENT = `#version 300 es
    precision highp float;
    in vec3 vNormal, vColor, vAt; in vec2 vUv;
    uniform sampler2D picture; uniform bool hasPicture;
    uniform highp int look;
    out vec4 pixel;
    void main() {
      if (look == 5) { pixel = vec4(0.1, 0.14, 0.22, 1.0); return; }
      vec3 n = normalize(length(vNormal) > 0.0 ? vNormal : cross(dFdx(vAt), dFdy(vAt)));
      if (!gl_FrontFacing) n = -n;
      vec3 base = vColor;
      if (hasPicture) base *= pow(texture(picture, vUv).rgb, vec3(2.2));
      if (look == 2) { pixel = vec4(n * 0.5 + 0.5, 1.0); return; }
      if (look == 4) { pixel = vec4(pow(base, vec3(1.0 / 2.2)), 1.0); return; }
      if (look == 3) {
        float check = mod(floor(vUv.x * 32.0) + floor(vUv.y * 32.0), 2.0);
        base = mix(vec3(0.06), vec3(vUv, 0.35), 0.35 + 0.65 * check);
      }
      if (look == 1) base = vec3(0.75);
      float key = max(dot(n, normalize(vec3(-0.45, 0.65, 0.62))), 0.0);
      float fill = max(dot(n, normalize(vec3(0.75, 0.1, 0.55))), 0.0);
      vec3 light = base * (0.75 * key + 0.25 * fill + 0.28);
      pixel = vec4(pow(light, vec3(1.0 / 2.2)), 1.0);
    }`;

  function decode(base64) {
    const text = atob(base64), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes.buffer;
  }

  function parse(buffer) {
    const view = new DataView(buffer), length = view.getUint32(12, true);
    const json = new TextDecoder().decode(new Uint8Array(buffer, 20, length));
    return {tree: JSON.parse(json), start: 28 + length, buffer};
  }

  // Float values of an accessor; integers are scaled to 0..1 unless they are indices.
  function read(glb, index, isIndex) {
    const accessor = glb.tree.accessors[index], size = WIDTH[accessor.type];
    const part = glb.tree.bufferViews[accessor.bufferView], Type = TYPES[accessor.componentType];
    const at = glb.start + (part.byteOffset || 0) + (accessor.byteOffset || 0);
    const stride = part.byteStride || size * Type.BYTES_PER_ELEMENT;
    const out = new (isIndex ? Uint32Array : Float32Array)(accessor.count * size);
    const scale = isIndex ? 1 : 1 / (FULL[accessor.componentType] || 1);
    if (stride === size * Type.BYTES_PER_ELEMENT) {  // packed: one copy, not one for each row
      const packed = new Type(glb.buffer.slice(at, at + accessor.count * stride));
      for (let i = 0; i < packed.length; i++) out[i] = packed[i] * scale;
      return {values: out, size, count: accessor.count};
    }
    for (let i = 0; i < accessor.count; i++) {
      const row = new Type(glb.buffer.slice(at + i * stride,
        at + i * stride + size * Type.BYTES_PER_ELEMENT));
      for (let k = 0; k < size; k++) out[i * size + k] = row[k] * scale;
    }
    return {values: out, size, count: accessor.count};
  }

  // Column-major 4 x 4 product.
  function multiply(a, b) {
    const out = new Array(16).fill(0);
    for (let c = 0; c < 4; c++)
      for (let r = 0; r < 4; r++)
        for (let k = 0; k < 4; k++) out[4 * c + r] += a[4 * k + r] * b[4 * c + k];
    return out;
  }

  function local(node) {
    if (node.matrix) return node.matrix;
    const [x, y, z, w] = node.rotation || [0, 0, 0, 1], [a, b, c] = node.scale || [1, 1, 1];
    const [p, q, r] = node.translation || [0, 0, 0];
    return [a * (1 - 2 * (y * y + z * z)), a * 2 * (x * y + z * w), a * 2 * (x * z - y * w), 0,
      b * 2 * (x * y - z * w), b * (1 - 2 * (x * x + z * z)), b * 2 * (y * z + x * w), 0,
      c * 2 * (x * z + y * w), c * 2 * (y * z - x * w), c * (1 - 2 * (x * x + y * y)), 0,
      p, q, r, 1];
  }

  function transform(matrix, source, isDirection) {
    const out = new Float32Array(source.length), w = isDirection ? 0 : 1;
    for (let i = 0; i < source.length; i += 3)
      for (let r = 0; r < 3; r++)
        out[i + r] = matrix[r] * source[i] + matrix[4 + r] * source[i + 1] +
          matrix[8 + r] * source[i + 2] + matrix[12 + r] * w;
    return out;
  }

  function primitives(glb) {
    const found = [], identity = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
    const visit = (index, above) => {
      const node = glb.tree.nodes[index], matrix = multiply(above, local(node));
      if (node.mesh !== undefined)
        for (const part of glb.tree.meshes[node.mesh].primitives) found.push({part, matrix});
      for (const child of node.children || []) visit(child, matrix);
    };
    for (const root of glb.tree.scenes[glb.tree.scene || 0].nodes) visit(root, identity);
    return found;
  }

  function triangles(glb, {part, matrix}) {
    const take = name => part.attributes[name] === undefined ? null
      : read(glb, part.attributes[name], false);
    const position = transform(matrix, take("POSITION").values, false), count = position.length / 3;
    const normal = take("NORMAL"), color = take("COLOR_0"), uv = take("TEXCOORD_0");
    const material = (glb.tree.materials || [])[part.material] || {};
    const pbr = material.pbrMetallicRoughness || {}, factor = pbr.baseColorFactor || [1, 1, 1];
    const colors = new Float32Array(3 * count);
    for (let i = 0; i < count; i++)
      for (let k = 0; k < 3; k++)
        colors[3 * i + k] = factor[k] * (color ? color.values[color.size * i + k]
          : pbr.baseColorTexture ? 1 : 0.5);
    return {position, color: colors, hasUv: Boolean(uv), uv: uv ? uv.values : new Float32Array(2 * count),
      normal: normal ? transform(matrix, normal.values, true) : new Float32Array(3 * count),
      index: part.indices === undefined ? Uint32Array.from({length: count}, (_, i) => i)
        : read(glb, part.indices, true).values,
      texture: pbr.baseColorTexture ? pbr.baseColorTexture.index : undefined};
  }

  async function bitmap(glb, texture) {
    const image = glb.tree.images[glb.tree.textures[texture].source];
    const part = glb.tree.bufferViews[image.bufferView], at = glb.start + (part.byteOffset || 0);
    const bytes = glb.buffer.slice(at, at + part.byteLength);
    return createImageBitmap(new Blob([bytes], {type: image.mimeType}));
  }

  function program(gl) {
    const made = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS))
        throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(made, shader);
    }
    gl.linkProgram(made);
    return made;
  }

  async function upload(gl, shader, glb, item) {
    const mesh = triangles(glb, item), array = gl.createVertexArray(), slots = [];
    gl.bindVertexArray(array);
    for (const [name, size] of [["position", 3], ["normal", 3], ["color", 3], ["uv", 2]]) {
      const slot = gl.getAttribLocation(shader, name);
      const buffer = gl.createBuffer();
      if (slot < 0) continue;
      slots.push([slot, {buffer, size}]);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, mesh[name], gl.STATIC_DRAW);
      gl.enableVertexAttribArray(slot);
      gl.vertexAttribPointer(slot, size, gl.FLOAT, false, 0, 0);
    }
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, mesh.index, gl.STATIC_DRAW);
    gl.bindVertexArray(null);
    let picture = null;
    if (mesh.texture !== undefined) {
      picture = gl.createTexture();
      const source = await bitmap(glb, mesh.texture);
      gl.bindTexture(gl.TEXTURE_2D, picture);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, source);
      gl.generateMipmap(gl.TEXTURE_2D);
    }
    return {array, picture, index: mesh.index, count: mesh.index.length, position: mesh.position,
      uv: mesh.uv, hasUv: mesh.hasUv, slots, edges: null, coarse: null};
  }

  // The triangles' sides as lines, made when they are first asked for.
  function edgesOf(gl, part) {
    const lines = new Uint32Array(2 * part.count);
    for (let i = 0; i < part.count; i += 3)
      lines.set([part.index[i], part.index[i + 1], part.index[i + 1], part.index[i + 2],
        part.index[i + 2], part.index[i]], 2 * i);
    return indexed(gl, part, lines);
  }

  // A part's vertices under other indices.
  function indexed(gl, part, index) {
    const array = gl.createVertexArray(), buffer = gl.createBuffer();
    gl.bindVertexArray(array);
    for (const [slot, source] of part.slots) {
      gl.bindBuffer(gl.ARRAY_BUFFER, source.buffer);
      gl.enableVertexAttribArray(slot);
      gl.vertexAttribPointer(slot, source.size, gl.FLOAT, false, 0, 0);
    }
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, index, gl.STATIC_DRAW);
    gl.bindVertexArray(null);
    return {array, count: index.length, index, slots: part.slots, edges: null};
  }

  // The same vertices with fewer triangles: those of a cell become one. For frames in motion on
  // machines that draw slowly; cells of the texture are kept apart, so that charts do not smear.
  function coarseOf(gl, part, {middle, radius}) {
    const cells = new Map(), count = part.position.length / 3, kept = new Uint32Array(count);
    const cell = (value, k) => Math.floor((value - middle[k] + radius) * CELLS / (2 * radius));
    for (let i = 0; i < count; i++) {
      let key = 0;
      for (let k = 0; k < 3; k++) key = key * (CELLS + 1) + cell(part.position[3 * i + k], k);
      for (let k = 0; k < 2; k++) key = key * 16 + (Math.floor(part.uv[2 * i + k] * 16) & 15);
      if (!cells.has(key)) cells.set(key, i);
      kept[i] = cells.get(key);
    }
    const index = new Uint32Array(part.count);
    let at = 0;
    for (let i = 0; i < part.count; i += 3) {
      const [a, b, c] = [kept[part.index[i]], kept[part.index[i + 1]], kept[part.index[i + 2]]];
      if (a === b || b === c || c === a) continue;
      index[at++] = a; index[at++] = b; index[at++] = c;
    }
    return indexed(gl, part, index.subarray(0, at));
  }

  function bounds(parts) {
    const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    for (const {position} of parts)
      for (let i = 0; i < position.length; i++) {
        low[i % 3] = Math.min(low[i % 3], position[i]);
        high[i % 3] = Math.max(high[i % 3], position[i]);
      }
    const middle = low.map((value, k) => (value + high[k]) / 2);
    return {middle, radius: Math.hypot(...low.map((v, k) => high[k] - v)) / 2 || 1};
  }

  function lookFrom(camera) {
    const [ca, sa, ce, se] = [Math.cos(camera.azimuth), Math.sin(camera.azimuth),
      Math.cos(camera.elevation), Math.sin(camera.elevation)];
    const right = [ca, 0, -sa], up = [-sa * se, ce, -ca * se], back = [sa * ce, se, ca * ce];
    const shift = axis => -(axis[0] * camera.target[0] + axis[1] * camera.target[1] +
      axis[2] * camera.target[2]);
    return [right[0], up[0], back[0], 0, right[1], up[1], back[1], 0, right[2], up[2], back[2], 0,
      shift(right), shift(up), shift(back) - camera.distance, 1];
  }

  function steer(canvas, camera, draw, reset) {
    let last = null;
    const turn = (x, y) => {
      camera.azimuth -= x * 0.01;
      camera.elevation = Math.max(-1.55, Math.min(1.55, camera.elevation + y * 0.01));
      draw();
    };
    const zoom = factor => { camera.distance *= factor; draw(); };
    canvas.onpointerdown = e => { last = [e.clientX, e.clientY]; canvas.setPointerCapture(e.pointerId); };
    canvas.onpointerup = () => { last = null; };
    canvas.onpointermove = e => {
      if (!last) return;
      turn(e.clientX - last[0], e.clientY - last[1]);
      last = [e.clientX, e.clientY];
    };
    canvas.addEventListener("wheel", e => {
      e.preventDefault();
      zoom(Math.exp(e.deltaY * 0.001));
    }, {passive: false});
    canvas.ondblclick = reset;
    const keys = {ArrowLeft: () => turn(-15, 0), ArrowRight: () => turn(15, 0),
      ArrowUp: () => turn(0, 15), ArrowDown: () => turn(0, -15),
      "+": () => zoom(0.9), "-": () => zoom(1.1)};
    canvas.onkeydown = e => { if (keys[e.key]) { e.preventDefault(); keys[e.key](); } };
  }

  const LOOKS = {lit: 0, wire: 1, normals: 2, uv: 3, texture: 4}, EDGES = 5;
  // In motion: cells along a side of a coarse mesh, milliseconds of a frame that are too many,
  // milliseconds of rest after which all is drawn again.
  const CELLS = 96, SLOW_MS = 50, REST_MS = 200;

  // Show a GLB, base64 or bytes, on a canvas. Returns what a page can do with the view; close()
  // gives the graphics memory back.
  async function mount(canvas, source) {
    const gl = canvas.getContext("webgl2", {antialias: false, preserveDrawingBuffer: true});
    if (!gl) throw new Error("this browser offers no WebGL 2");
    const glb = parse(typeof source === "string" ? decode(source) : source);
    const shader = program(gl), parts = [];
    for (const item of primitives(glb)) parts.push(await upload(gl, shader, glb, item));
    const size = bounds(parts), {middle, radius} = size;
    const start = {azimuth: 0.61, elevation: 0.35, distance: radius * 3.9, target: middle};
    const camera = {...start};
    let look = "lit", backdrop = [0.965, 0.965, 0.973], spinning = 0;
    const places = Object.fromEntries(["projection", "view", "hasPicture", "look"].map(
      name => [name, gl.getUniformLocation(shader, name)]));
    const uniform = name => places[name], pixel = new Uint8Array(4);
    let ease = 0, asked = 0, rest = 0;  // ease: 0 all triangles, 1 the coarse mesh, in motion
    // At rest a pixel of the screen is four of the canvas where screens are coarse, which smooths
    // edges; in motion it is one at most.
    const draw = (moving = false) => {
      const ratio = window.devicePixelRatio || 1;
      const sharp = !moving ? Math.max(ratio, 2) : ease ? Math.min(ratio, 1) : ratio;
      const wanted = [canvas.clientWidth, canvas.clientHeight]
        .map(length => Math.max(1, Math.floor(length * sharp)));
      if (canvas.width !== wanted[0]) canvas.width = wanted[0];
      if (canvas.height !== wanted[1]) canvas.height = wanted[1];
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(...backdrop, 1);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.enable(gl.DEPTH_TEST);
      gl.useProgram(shader);
      const near = Math.max(camera.distance - 2 * radius, radius * 0.01);
      const far = camera.distance + 2 * radius, focal = 1 / Math.tan(0.2618);
      const wide = canvas.width / canvas.height, lens = focal * Math.min(1, wide);
      gl.uniformMatrix4fv(uniform("projection"), false, [lens / wide, 0, 0, 0, 0, lens, 0, 0,
        0, 0, (far + near) / (near - far), -1, 0, 0, 2 * far * near / (near - far), 0]);
      gl.uniformMatrix4fv(uniform("view"), false, lookFrom(camera));
      for (const part of parts) {
        gl.uniform1i(uniform("hasPicture"), part.picture ? 1 : 0);
        gl.bindTexture(gl.TEXTURE_2D, part.picture);
        gl.uniform1i(uniform("look"), LOOKS[look]);
        if (moving && ease && !part.coarse) part.coarse = coarseOf(gl, part, size);
        const drawn = moving && ease ? part.coarse : part;
        gl.bindVertexArray(drawn.array);
        gl.drawElements(gl.TRIANGLES, drawn.count, gl.UNSIGNED_INT, 0);
        if (look !== "wire" ) continue;
        drawn.edges = drawn.edges || edgesOf(gl, drawn);
        gl.uniform1i(uniform("look"), EDGES);
        gl.bindVertexArray(drawn.edges.array);
        gl.drawElements(gl.LINES, drawn.edges.count, gl.UNSIGNED_INT, 0);
      }
    };
    // One frame in motion; reading a pixel waits for it, so that its time is known.
    const move = () => {
      const began = performance.now();
      draw(true);
      gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
      if (performance.now() - began > SLOW_MS) ease = 1;
      clearTimeout(rest);
      rest = setTimeout(() => draw(), REST_MS);
    };
    // Many events between two frames of the screen are one drawing.
    const soon = () => {
      asked = asked || requestAnimationFrame(() => { asked = 0; move(); });
    };
    let last = 0;
    const spin = now => {
      camera.azimuth += Math.min(now - last, 100) * 0.0006;
      last = now;
      move();
      spinning = requestAnimationFrame(spin);
    };
    // A jump is no motion: it is drawn whole.
    const reset = () => {
      cancelAnimationFrame(asked);
      clearTimeout(rest);
      asked = 0;
      Object.assign(camera, start);
      draw();
    };
    steer(canvas, camera, soon, reset);
    const resized = new ResizeObserver(() => draw());
    resized.observe(canvas);
    draw();
    const stop = () => { cancelAnimationFrame(spinning); spinning = 0; };
    return {
      faces: parts.reduce((sum, part) => sum + part.count / 3, 0),
      hasUv: parts.some(part => part.hasUv), hasPicture: parts.some(part => part.picture),
      draw: () => draw(), pace: () => ({coarse: Boolean(ease), width: canvas.width}),
      setLook(name) { look = name in LOOKS ? name : "lit"; draw(); },
      setBackdrop(rgb) { backdrop = rgb; draw(); },
      setSpin(on) {
        stop();
        last = performance.now();
        if (on) spinning = requestAnimationFrame(spin);
      },
      reset,
      close() {
        stop();
        cancelAnimationFrame(asked);
        clearTimeout(rest);
        resized.disconnect();
        gl.getExtension("WEBGL_lose_context")?.loseContext();
      },
    };
  }

  // One canvas a stage; at most eight at once, because browsers drop contexts beyond sixteen.
  const open = [];
  async function show(stage) {
    const canvas = document.createElement("canvas"), still = stage.querySelector("img");
    canvas.tabIndex = 0;
    canvas.title = "Drag to turn, wheel to zoom, double click to reset";
    stage.append(canvas);
    try {
      const view = await mount(canvas, document.getElementById(stage.dataset.mesh).textContent);
      if (still) still.hidden = true;
      stage.dataset.state = "shown";
      open.push({stage, close: () => {
        view.close();
        canvas.remove();
        if (still) still.hidden = false;
        stage.dataset.state = "";
      }});
      if (open.length > 8) open.shift().close();
    } catch (error) {
      canvas.remove();
      stage.dataset.state = "failed";
      stage.append(Object.assign(document.createElement("p"), {textContent: `No 3D view: ${error.message}.`}));
    }
  }

  function begin() {
    for (const stage of document.querySelectorAll("[data-mesh]")) {
      if (stage.hasAttribute("data-now")) show(stage);
      else stage.onclick = () => { if (!stage.dataset.state) show(stage); };
    }
  }
  return {mount, show, begin};
})();
DreamCadViewer.begin();

# The product in one folder: our code and the locked wheels, with an interpreter in front.
{ lib, stdenv, python311, autoPatchelfHook, makeWrapper, zlib
, wheelhouse ? ../.cache/image/wheels
}:
stdenv.mkDerivation {
  pname = "casemate";
  version = (lib.importTOML ../pyproject.toml).project.version;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [ ../appliance ../audit ../compliance ../runtime ../security ../pyproject.toml ../README.md ../LICENSE ../image/wheels-cpu.lock ];
  };

  nativeBuildInputs = [ autoPatchelfHook makeWrapper python311 ];
  buildInputs = [ stdenv.cc.cc.lib zlib ];

  # Nothing is compiled, and pip's network is cut off twice: by Nix's sandbox and by --no-index.
  dontConfigure = true;
  dontBuild = true;
  installPhase = ''
    runHook preInstall
    ${python311}/bin/python ${wheelhouse}/pip-*.whl/pip install --no-index -f ${wheelhouse} --require-hashes \
      --no-deps --no-compile --no-cache-dir --target $out/lib --requirement image/wheels-cpu.lock
    cp -r appliance audit compliance runtime security $out/lib/
    makeWrapper ${python311}/bin/python $out/bin/casemate --add-flags "-m appliance.cli.main" \
      --set PYTHONPATH $out/lib --set PYTHONSAFEPATH 1 --set PYTHONDONTWRITEBYTECODE 1
    runHook postInstall
  '';

  meta = {
    description = "A hardened LLM appliance";
    license = lib.licenses.asl20;
    mainProgram = "casemate";
    platforms = [ "x86_64-linux" ];
  };
}

"""Makes and judges tokens with PyJWT: an implementation that shares nothing with the gateway.

jwt_client.py sign ALGORITHM KEY_FILE KEY_ID CLAIMS_JSON   prints a token
jwt_client.py verify ALGORITHM KEY_FILE AUDIENCE TOKEN      prints header and claims as JSON, or fails
"""

import json
import sys

import jwt


def main() -> None:
    action, algorithm, key_file = sys.argv[1:4]
    with open(key_file, encoding="utf-8") as file:
        key = file.read()
    if action == "sign":
        key_id, claims = sys.argv[4:6]
        headers = {"kid": key_id} if key_id else None
        print(jwt.encode(json.loads(claims), key, algorithm=algorithm, headers=headers))
    else:
        audience, token = sys.argv[4:6]
        claims = jwt.decode(token, key, algorithms=[algorithm], audience=audience or None)
        print(json.dumps({"header": jwt.get_unverified_header(token), "claims": claims}))


main()
